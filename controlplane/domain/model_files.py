"""Opens an untrusted model folder: config.json, the safetensors index, the headers. Weights are never loaded.

This is the one place under domain/ that touches a disk. Everything read is bounded, names in an index may not lead
out of the folder, and whatever is wrong becomes a FactsError that says what to do.
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from controlplane.domain.problems import FactsError

MAX_CONFIG_BYTES = 4 * 2**20
MAX_INDEX_BYTES = 32 * 2**20  # that of a model with 100,000 tensors takes about 12 MB
MAX_HEADER_BYTES = 32 * 2**20
MAX_HEADERS_BYTES = 128 * 2**20  # of all files together
MAX_SHARDS = 4096

_LARGEST = 2**60
_INDEX_TOLERANCE = 0.01  # headers and padding make files a little larger than their weights
_HEADER_ALLOWANCE = 2**20
_SECOND_COPIES = ("consolidated", "adapter_")  # the same weights in another layout, or none of the model's own
_INDEX = "model.safetensors.index.json"
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of the weights on disk; None where the folder has none that can be counted."""

    total_bytes: int | None
    warnings: tuple[str, ...] = ()


def open_folder(path: str | Path) -> Path:
    """The folder behind a path; symbolic links to it are followed, as model caches are built of them."""
    folder = Path(path)
    try:
        resolved = folder.resolve(strict=True)
        is_folder = resolved.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise FactsError(f"{_name(folder)} cannot be opened: {_why(error)}.",
                         "Give the full path of a folder that this process may read.") from error  # fmt: skip
    if not is_folder:
        raise FactsError(f"{_name(folder)} is not a folder.", "Give the folder that holds config.json.")
    return resolved


def read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        raise FactsError(f"{_name(folder)} holds no config.json.", "Give the folder that holds config.json.")
    return _read_json(folder / "config.json", MAX_CONFIG_BYTES)


def weights_bytes(folder: Path) -> Weights:
    """What the engine will load: the index's total, else the sum over the safetensors headers or file sizes."""
    if (folder / _INDEX).exists():
        return _from_index(folder)
    shards = _found(folder, "*.safetensors")
    shards = [p for p in shards if not p.name.startswith(_SECOND_COPIES)] or shards
    if shards:
        return Weights(_sum_headers(shards))
    if bins := _found(folder, "pytorch_model*.bin"):
        return Weights(sum(map(_size, bins)), ("Weights are not safetensors; their size is that of the files.",))
    if ggufs := _found(folder, "*.gguf"):
        return Weights(max(map(_size, ggufs)), ("Weights are GGUF; their size is that of the largest file.",))
    return Weights(None, ("The folder holds no weights; their size is unknown and the fit cannot be checked.",))


def _found(folder: Path, pattern: str) -> list[Path]:
    found = list(islice(folder.glob(pattern), MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise FactsError(f"{_name(folder)} holds more than {MAX_SHARDS} weight files.", "Check the folder.")
    return sorted(found)


def _from_index(folder: Path) -> Weights:
    """The index's total, unless the files themselves say otherwise: tools that rewrite weights forget to update it."""
    index = _read_json(folder / _INDEX, MAX_INDEX_BYTES)
    shards = [folder / name for name in _shards(index, folder)]
    missing = [path.name for path in shards if not _is_file(path)]
    total = _total(index)
    if missing:
        warning = f"{len(missing)} of {len(shards)} weight files are missing, {missing[0][:100]} first."
        return Weights(total, (warning,))
    stored = sum(map(_size, shards))
    if total is None:
        return Weights(_sum_headers(shards))
    if abs(stored - total) > stored * _INDEX_TOLERANCE + len(shards) * _HEADER_ALLOWANCE:
        return Weights(stored, (f"The index says {total} bytes of weights, the files hold {stored}; the files count.",))
    return Weights(total)


def _total(index: Mapping[str, Any]) -> int | None:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(total, float) and math.isfinite(total):
        total = int(total)
    return total if isinstance(total, int) and not isinstance(total, bool) and 0 < total < _LARGEST else None


def _shards(index: Mapping[str, Any], folder: Path) -> list[str]:
    names = index.get("weight_map")
    if not isinstance(names, Mapping) or not names:
        raise FactsError(f"{_INDEX} of {_name(folder)} lists no weights.", "Download the model again.")
    shards = sorted({name for name in names.values() if isinstance(name, str)})
    if len(shards) > MAX_SHARDS:
        raise FactsError(f"{_INDEX} lists {len(shards)} files, more than {MAX_SHARDS}.", "Check the model's origin.")
    for name in shards:
        if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise FactsError(f"{_INDEX} names a file outside of its folder.", "Do not use this model.", "model-hostile")
    return shards


def _sum_headers(paths: Sequence[Path]) -> int:
    total, left = 0, MAX_HEADERS_BYTES
    for path in paths:
        weights, header = _header_bytes(path)
        total, left = total + weights, left - header
        if left < 0:
            raise FactsError("The headers of the weight files are too large.", "Check the model's origin.")
    return total


def _header_bytes(path: Path) -> tuple[int, int]:
    """(bytes of all tensors, bytes of the header) of a safetensors file: 8 bytes of length, a JSON header, data."""
    size = _size(path)
    if size < 8:  # before it is opened: opening a pipe would wait for ever
        raise FactsError(f"{path.name} is not a safetensors file, or was cut off.", "Download it again.")
    try:
        with path.open("rb") as file:
            length = int(struct.unpack("<Q", file.read(8))[0])
            if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                raise FactsError(f"{path.name} is not a safetensors file, or was cut off.", "Download it again.")
            header = _parse(file.read(length), path.name)
    except OSError as error:
        raise FactsError(f"{path.name} cannot be read: {_why(error)}.", "Check its permissions.") from error
    total = sum(_tensor_bytes(entry, path.name) for name, entry in header.items() if name != "__metadata__")
    if total > size - 8 - length:
        raise FactsError(f"{path.name} is shorter than its header says.", "Download it again.")
    return total, length


def _tensor_bytes(entry: object, name: str) -> int:
    """Bytes of one tensor by its offsets, which dtype and shape must agree with."""
    damaged = FactsError(f"The header of {name} is damaged.", "Download it again.")
    if not isinstance(entry, Mapping):
        raise damaged
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not (_is_numbers(shape) and _is_numbers(offsets) and len(shape) <= 32 and len(offsets) == 2):
        raise damaged
    begin, end = offsets
    bits = _BITS.get(str(entry.get("dtype")))
    if begin > end or (bits is not None and math.prod(shape) * bits != (end - begin) * 8):
        raise damaged
    return end - begin


def _is_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _LARGEST for item in value)


def _read_json(path: Path, most: int) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FactsError(f"{path.name} is not a plain file.", "Check the folder.")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise FactsError(f"{path.name} cannot be read: {_why(error)}.", "Check its permissions.") from error
    if len(raw) > most:
        raise FactsError(f"{path.name} is larger than {most // 2**20} MiB.", "Check the model's origin.")
    return _parse(raw, path.name)


def _parse(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{name} is not valid JSON.", "Download the model again.") from error
    if not isinstance(value, dict):
        raise FactsError(f"{name} does not hold a JSON object.", "Download the model again.")
    return value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if _is_file(path) else 0


def _name(folder: Path) -> str:
    return str(folder)[:200]


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
