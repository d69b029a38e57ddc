"""Small model folders, real in their files, for tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def safetensors(size: int, seed: str = "") -> bytes:
    """A file of one tensor of `size` bytes, which differ by `seed`."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = hashlib.sha256(seed.encode()).digest()
    return len(header).to_bytes(8, "little") + header + (block * (size // len(block) + 1))[:size]


def make_folder(folder: Path, *, shards: int = 2, size: int = 1000) -> Path:
    """A model of so many shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    for name in names:
        (folder / name).write_bytes(safetensors(size, name))
    index = {"metadata": {"total_size": shards * size}, "weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def make_snapshot(cache: Path, repository: str, commit: str, *branches: str, **shape: int) -> Path:
    """As huggingface_hub lays it out: files are links to blobs named by their content."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = make_folder(home / "snapshots" / commit, **shape)
    blobs = home / "blobs"
    blobs.mkdir(exist_ok=True)
    for file in list(snapshot.iterdir()):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(f"../../blobs/{blob.name}")
    (home / "refs").mkdir(exist_ok=True)
    for branch in branches:
        (home / "refs" / branch).parent.mkdir(parents=True, exist_ok=True)
        (home / "refs" / branch).write_text(commit)
    return snapshot
