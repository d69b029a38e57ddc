"""What a watcher gets of the frames: what it shows and no more, and nothing of it is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from controlplane.telemetry.frame import BLANK, EVERYTHING, NOTHING, Frame, Lens, View, Wants
from controlplane.telemetry.wants import of_others, tell

ALL = (1, 2, 3)


def frame(seq: int = 2, *, whole: bool = True, **fields: Any) -> Frame:
    """Of three nodes, each heard, unless told otherwise."""
    made = {
        "moved": [],
        "heard": list(ALL),
        "removed": [],
        "ages": b"[1,5,2,5,3,5]",
        "nodes": {pk: b'{"id":%d}' % pk for pk in ALL},
        "cells": {fill: {pk: b"[%d,null]" % pk for pk in ALL} for fill in ("utilization", "kv")},
        "common": b'"version":7',
    }
    return Frame(seq=seq, epoch="e", at=100.0, is_whole=whole, **(made | fields))


def seen(lens: Lens, it: Frame) -> dict[str, Any]:
    return json.loads(lens.see(it) or "null")


def ids(text: dict[str, Any]) -> list[int]:
    return sorted(node["id"] for node in text["nodes"])


def test_who_says_nothing_gets_every_node_that_was_heard() -> None:
    got = seen(Lens(), frame(moved=[1], heard=[1, 2], removed=[9]))
    assert (got["type"], got["seq"], got["epoch"], got["at"], got["version"]) == ("frame", 2, "e", 100.0, 7)
    assert (ids(got), got["removed"]) == ([1, 2], [9])


def test_who_says_nothing_gets_no_frame_before_one_that_is_whole_and_none_is_kept_back_after() -> None:
    lens = Lens()
    assert lens.see(frame(2, whole=False)) is None
    assert seen(lens, frame(3))["seq"] == 3
    assert seen(lens, frame(4, whole=False))["seq"] == 4


def test_a_view_gets_one_figure_of_what_is_in_sight_and_the_age_of_all() -> None:
    got = seen(Lens(View("view", fill="kv", nodes=[1, 3])), frame(moved=[2]))
    assert got["cells"] == {"1": [1, None], "3": [3, None]}
    assert (got["fill"], got["heard"]) == ("kv", [1, 5, 2, 5, 3, 5])
    assert ids(got) == [2]  # its shape changed


def test_a_node_shown_in_detail_is_whole_each_time_it_is_heard() -> None:
    lens = Lens(View("view", detail=[2]))
    assert [ids(seen(lens, frame(n, heard=heard))) for n, heard in ((2, [1]), (3, [1, 2]), (4, [1]))] == [[2], [2], []]


def test_what_comes_into_sight_is_shown_though_it_is_silent_and_only_once() -> None:
    lens = Lens(View("view", fill="kv", nodes=[1]))
    seen(lens, frame())
    lens.turn(View("view", fill="kv", nodes=[1, 2]))
    assert list(seen(lens, frame(3, heard=[]))["cells"]) == ["2"]
    assert seen(lens, frame(4, heard=[]))["cells"] == {}


def test_another_figure_is_owed_of_all_in_sight_until_the_frames_have_it() -> None:
    lens = Lens(View("view", fill="kv", nodes=[1, 2]))
    seen(lens, frame())
    lens.turn(View("view", fill="power", nodes=[1, 2]))
    assert seen(lens, frame(3, heard=[]))["cells"] == {}
    got = seen(lens, frame(4, heard=[], cells={"power": {1: b"[300]", 2: b"[310]"}}))
    assert got["cells"] == {"1": [300], "2": [310]}


def test_what_the_last_frame_holds_is_caught_up_at_once_and_is_no_step() -> None:
    lens = Lens(BLANK)
    lens.turn(View("view", fill="kv", nodes=[1], detail=[3]))
    got = json.loads(lens.catch_up(frame(heard=[])) or "")
    assert (got["type"], ids(got), got["cells"]) == ("late", [3], {"1": [1, None]})
    assert "removed" not in got
    assert lens.catch_up(frame(heard=[])) is None


def test_the_first_frame_of_an_epoch_does_not_send_the_whole_fleet_to_a_view() -> None:
    """It loads the fleet by REST when it sees another epoch."""
    assert ids(seen(Lens(BLANK), frame(1, moved=list(ALL)))) == []
    assert ids(seen(Lens(), frame(1, moved=list(ALL)))) == list(ALL)


def test_all_in_detail_is_everything() -> None:
    lens = Lens(View("view", detail="all"))
    assert lens.wants == EVERYTHING
    assert ids(seen(lens, frame())) == list(ALL)


def test_wants_are_what_is_shown() -> None:
    assert Lens(BLANK).wants == NOTHING
    shown = Lens(View("view", fill="kv", nodes=[1], detail=[2])).wants
    assert shown == Wants(fills=frozenset({"kv"}), detail=frozenset({2}))
    assert shown | Lens(View("view", detail=[3])).wants == Wants(fills=frozenset({"kv"}), detail=frozenset({2, 3}))


def test_processes_know_what_the_others_want(live_valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Wants(fills=frozenset({"kv"})), Wants(detail=frozenset({4}))
    tell("one", one)
    tell("two", two)
    assert (of_others("one"), of_others("three")) == (two, one | two)
    monkeypatch.setattr("controlplane.telemetry.wants.GOOD_FOR_S", -1.0)
    tell("two", two)
    assert of_others("one") == NOTHING


def test_a_frame_survives_the_way_between_processes() -> None:
    sent = frame(moved=[1])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Frame) == sent
