"""Reading a model folder, which may be broken or hostile."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import model_files
from controlplane.domain.model_facts import FactsError, read_folder
from tests.domain import configs


def write_model(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(configs.SMOLLM2_135M))
    return folder


def safetensors(path: Path, header: dict[str, Any], data: bytes = b"") -> None:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def tensor(shape: list[int], size: int, begin: int = 0, dtype: str = "BF16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


def write_index(folder: Path, names: dict[str, str], total: object) -> None:
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_bytes_are_summed_over_the_headers(folder: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": tensor([4, 4], 32), "b": tensor([2], 4, begin=32)}
    safetensors(folder / "model.safetensors", header, bytes(36))

    facts = read_folder(folder)

    assert facts.parameter_bytes == 36
    assert facts.layers == 30


def test_several_files_without_an_index_add_up(folder: Path) -> None:
    for name in ("one", "two"):
        safetensors(folder / f"{name}.safetensors", {"a": tensor([8], 16)}, bytes(16))

    assert read_folder(folder).parameter_bytes == 32


def test_a_second_copy_of_the_weights_does_not_count(folder: Path) -> None:
    safetensors(folder / "model.safetensors", {"a": tensor([8], 16)}, bytes(16))
    safetensors(folder / "consolidated.safetensors", {"a": tensor([8], 16)}, bytes(16))

    assert read_folder(folder).parameter_bytes == 16


def test_half_byte_and_unheard_of_dtypes_are_counted(folder: Path) -> None:
    header = {"a": tensor([8], 4, dtype="F4"), "b": tensor([3], 5, begin=4, dtype="F6_E2M3")}
    safetensors(folder / "model.safetensors", header, bytes(9))

    assert read_folder(folder).parameter_bytes == 9


def test_the_index_tells_the_total(folder: Path) -> None:
    safetensors(folder / "a.safetensors", {"a": tensor([500_000], 1_000_000)}, bytes(1_000_000))
    write_index(folder, {"x": "a.safetensors"}, 1_000_000)

    facts = read_folder(folder)

    assert facts.parameter_bytes == 1_000_000
    assert facts.warnings == ()


def test_an_index_that_lies_is_overruled_by_the_files(folder: Path) -> None:
    safetensors(folder / "a.safetensors", {"a": tensor([4], 8)}, bytes(8))
    write_index(folder, {"x": "a.safetensors"}, 10**12)

    facts = read_folder(folder)

    assert facts.parameter_bytes == (folder / "a.safetensors").stat().st_size
    assert any("the files count" in warning for warning in facts.warnings)


def test_missing_files_are_told(folder: Path) -> None:
    write_index(folder, {"x": "a.safetensors", "y": "b.safetensors"}, 640)

    facts = read_folder(folder)

    assert facts.parameter_bytes == 640
    assert "2 of 2 weight files are missing, a.safetensors first." in facts.warnings


@pytest.mark.parametrize("total", [None, "many", -1, True, 1e400])
def test_without_a_usable_total_the_headers_are_summed(folder: Path, total: object) -> None:
    safetensors(folder / "a.safetensors", {"a": tensor([4], 8)}, bytes(8))
    write_index(folder, {"x": "a.safetensors"}, total)

    assert read_folder(folder).parameter_bytes == 8


def test_a_folder_without_weights_leaves_their_size_unknown(folder: Path) -> None:
    facts = read_folder(folder)

    assert facts.parameter_bytes is None
    assert any("no weights" in warning for warning in facts.warnings)


def test_other_formats_count_by_file_size(folder: Path) -> None:
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(bytes(10))
    (folder / "pytorch_model-00002-of-00002.bin").write_bytes(bytes(5))

    assert read_folder(folder).parameter_bytes == 15


def test_of_several_gguf_files_the_largest_counts(folder: Path) -> None:
    (folder / "q4.gguf").write_bytes(bytes(10))
    (folder / "q8.gguf").write_bytes(bytes(20))

    assert read_folder(folder).parameter_bytes == 20


def test_files_may_be_links_as_in_a_model_cache(tmp_path: Path) -> None:
    blobs = write_model(tmp_path / "blobs")
    safetensors(blobs / "w", {"a": tensor([4], 8)}, bytes(8))
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").symlink_to("../blobs/config.json")
    (snapshot / "model.safetensors").symlink_to("../blobs/w")
    (tmp_path / "main").symlink_to("snapshot")

    assert read_folder(tmp_path / "main").parameter_bytes == 8


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "x" * 5000])
def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(FactsError) as caught:
        read_folder(tmp_path / path)

    assert caught.value.fix


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FactsError, match="not a folder"):
        read_folder(tmp_path / "file")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(FactsError):
        read_folder(tmp_path / "loop")


def test_no_config_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match=r"no config\.json"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a": ' * 100_000, '{"a": ' + "9" * 5000 + "}", "\x00"])
def test_a_config_that_is_no_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)

    with pytest.raises(FactsError):
        read_folder(folder)


def test_a_huge_config_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(model_files.MAX_CONFIG_BYTES + 1)

    with pytest.raises(FactsError, match="larger than"):
        read_folder(folder)


def test_a_pipe_does_not_hold_the_reader(folder: Path) -> None:
    os.mkfifo(folder / "model.safetensors")

    with pytest.raises(FactsError):
        read_folder(folder)

    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(FactsError, match="not a plain file"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\0b"])
def test_an_index_may_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    write_index(folder, {"x": name}, 5)

    with pytest.raises(FactsError) as caught:
        read_folder(folder)

    assert caught.value.problem.code == "model-hostile"


def test_an_index_without_weights_is_refused(folder: Path) -> None:
    write_index(folder, {}, 5)

    with pytest.raises(FactsError):
        read_folder(folder)


@pytest.mark.parametrize(
    "entry",
    [
        tensor([4], 9),  # the sizes disagree
        {"dtype": "BF16", "shape": [4], "data_offsets": [8, 0]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0]},
        {"dtype": "BF16", "shape": "4", "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [True, 4], "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [1] * 100, "data_offsets": [0, 2]},
        {"dtype": "BF16", "shape": [-4], "data_offsets": [0, 8]},
        {"dtype": "BF16"},
        7,
        tensor([2**50], 2**51),  # more than the file holds
    ],
)
def test_a_damaged_header_is_refused(folder: Path, entry: Any) -> None:
    safetensors(folder / "model.safetensors", {"a": entry}, bytes(8))

    with pytest.raises(FactsError):
        read_folder(folder)


def test_a_header_longer_than_its_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")

    with pytest.raises(FactsError, match="cut off"):
        read_folder(folder)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_header_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = write_model(tmp_path_factory.getbasetemp() / "any")
    (folder / "model.safetensors").write_bytes(raw)

    with pytest.raises(FactsError):
        read_folder(folder)
