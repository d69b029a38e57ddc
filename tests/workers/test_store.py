"""What an agent finds of weights on its disk: whole, in part, or not to be believed; and that looking stays bounded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec
import pytest

from tests.workers.control import make_spec, until
from tests.workers.models import make_folder, make_snapshot, safetensors
from workers.store import places
from workers.store.folder import Reader, is_inside
from workers.store.places import Places, hub_cache
from workers.weights import MOST, WeightsReport, WeightsState

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def look(*roots: Path, cache: Path | None = None, also: tuple[str, ...] = ()) -> WeightsReport:
    return Places(roots, cache or Path("/nowhere")).look(also, {})


def test_a_folder_is_whole_when_every_shard_is_as_long_as_its_header_says(tmp_path):
    folder = make_folder(tmp_path / "a")
    [held] = look(tmp_path).models
    assert (held.source, held.state, held.message) == (str(folder), WeightsState.COMPLETE, "")
    assert held.bytes == held.total_bytes == sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def test_what_is_missing_or_cut_off_is_told(tmp_path):
    folder = make_folder(tmp_path / "a", shards=3)
    shard = folder / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    for data, why in ((whole[:-1], "cut off or damaged"), (whole + b"x", "cut off"), (b"", "cut off")):
        shard.write_bytes(data)
        [held] = look(tmp_path).models
        assert held.state == WeightsState.PARTIAL and shard.name in held.message and why in held.message
    shard.unlink()
    [held] = look(tmp_path).models
    assert held.message == f"1 of 3 weight files are missing, {shard.name} first" and held.total_bytes == 3000
    (folder / "model.safetensors.index.json").unlink()  # as while it is downloaded
    assert look(tmp_path).models[0].message.startswith("1 of 3 weight files are missing")


def test_looking_again_sees_a_file_that_changed(tmp_path):
    folder, reader = make_folder(tmp_path), Reader()
    shard = folder / "model-00001-of-00002.safetensors"
    assert reader.look(folder).state == WeightsState.COMPLETE
    shard.write_bytes(shard.read_bytes()[:-10])
    assert reader.look(folder).state == WeightsState.PARTIAL
    reader.forget_unseen()
    shard.write_bytes(safetensors(500))
    assert reader.look(folder).state == WeightsState.COMPLETE


@pytest.mark.parametrize(
    "index",
    ["[]", "{", '{"weight_map": {"w": "../../etc/passwd"}}', '{"weight_map": {"w": "/etc/passwd"}}',
     '{"weight_map": {}}', '{"weight_map": {"w": 7}}', "[" * 10_000],
)  # fmt: skip
def test_a_hostile_index_makes_the_folder_partial_and_is_followed_nowhere(tmp_path, index):
    folder = make_folder(tmp_path)
    (folder / "model.safetensors.index.json").write_text(index)
    found = Reader().look(folder)
    assert found.state == WeightsState.PARTIAL and "model.safetensors.index.json" in found.message


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\x08" + bytes(7) + b"[]      ", b"\x02" + bytes(7) + b"{]"])
def test_a_hostile_header_is_damage(tmp_path, header):
    folder = make_folder(tmp_path)
    (folder / "model-00001-of-00002.safetensors").write_bytes(header)
    assert Reader().look(folder).state == WeightsState.PARTIAL


def test_pipes_and_links_to_nowhere_are_not_there(tmp_path):
    folder = make_folder(tmp_path)
    shard = folder / "model-00001-of-00002.safetensors"
    shard.unlink()
    os.mkfifo(shard)  # opening it would wait for ever
    assert Reader().look(folder).message == f"1 of 2 weight files are missing, {shard.name} first"
    shard.unlink()
    shard.symlink_to("/nowhere/at/all")
    assert Reader().look(folder).state == WeightsState.PARTIAL


def test_loops_of_links_end_and_linked_models_are_found_by_their_name(tmp_path):
    make_folder(tmp_path / "elsewhere" / "m")
    root = tmp_path / "root"
    root.mkdir()
    (root / "named").symlink_to(tmp_path / "elsewhere" / "m")
    (root / "loop").symlink_to(root)
    found = {held.source for held in look(root).models}
    assert str(root / "named") in found and len(found) <= 1 + places.DEPTH


def test_a_huge_folder_is_looked_at_in_part_and_the_rest_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MOST_FOLDERS", 5)
    for n in range(12):
        make_folder(tmp_path / f"m{n:02}", shards=1, size=4)
    found = look(tmp_path)
    assert len(found.models) == 4 and found.left_out == 8


def test_no_more_are_told_of_than_a_report_holds(tmp_path):
    for n in range(MOST + 3):
        folder = tmp_path / f"m{n}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(safetensors(4))
    found = look(tmp_path)
    assert (len(found.models), found.left_out) == (MOST, 3)
    assert msgspec.json.decode(msgspec.json.encode(found), type=WeightsReport) == found


def test_repositories_in_the_cache_are_known_by_commit_and_branch(tmp_path):
    cache = hub_cache({"HF_HOME": str(tmp_path)})
    make_snapshot(cache, "org/model.7B", COMMIT, "main", "refs/pr/1")
    make_snapshot(cache, "org/model.7B", COMMIT[::-1])
    (cache / "models--evil--..").mkdir()
    (cache / "models--org--model.7B" / "refs" / "bad").write_text("../../../etc")
    newer, older = sorted(look(cache=cache).models, key=lambda held: len(held.revisions), reverse=True)
    assert newer.source == older.source == "org/model.7B"
    assert newer.revisions == (COMMIT, "main", "refs/pr/1") and older.revisions == (COMMIT[::-1],)
    assert newer.state == older.state == WeightsState.COMPLETE


def test_names_that_lead_out_of_a_folder():
    assert is_inside("a.bin") and is_inside("sub/a.bin")
    assert not any(is_inside(name) for name in ("", "/a", "../a", "a/../../b", "a\0b", "..", "a\\b"))


def test_an_agent_tells_what_it_holds_once_and_again_when_it_is_asked_or_changes(control, new_agent, tmp_path):
    folder = make_folder(tmp_path / "models" / "m")
    engines = make_folder(tmp_path / "aside" / "demo")
    agent = new_agent(FOREBAY_MODELS=str(tmp_path / "models"), HF_HOME=str(tmp_path / "hf"))
    agent.join()
    control.want(make_spec(1, model=str(engines)))
    agent.start()
    told = until(lambda: next((r for r in control.reports if r.weights), None))
    assert {held.source: held.state for held in told.weights.models}[str(folder)] == WeightsState.COMPLETE
    assert told.weights_mark == told.weights.mark()
    until(lambda: control.last.weights_mark and control.last.weights is None)
    used = until(lambda: _told(control, str(engines)), what="a folder that an engine uses, wherever it lies")
    assert abs(used.used_at - time.time()) < 600
    until(lambda: control.last.weights is None)
    control.ask_weights = True
    until(lambda: control.last.weights is not None, what="asked for")
    control.ask_weights = False
    until(lambda: control.last.weights is None)
    assert "Traceback" not in agent.log()
    assert json.loads((agent.home / "weights-used.json").read_text()).keys() == {str(engines)}


def _told(control, source):
    lists = [report.weights for report in control.reports if report.weights]
    return next((held for held in lists[-1].models if held.source == source and held.used_at), None) if lists else None
