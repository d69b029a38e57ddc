"""Which weights make room for others, and when there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.config import ConfigError, Settings
from workers.store.room import GIB, Disk, Kept, Limits, NoRoom, make_room, room_bytes

ROOMY = Disk(total=1000, free=1000)
CAP = Limits(cap_bytes=100, free_bytes=0)


def kept(*ages: int, bytes: int = 30) -> list[Kept]:
    return [Kept(f"o/m{n}", "c", bytes, used_at) for n, used_at in enumerate(ages)]


def gone(found: tuple[Kept, ...] | NoRoom) -> list[str]:
    assert not isinstance(found, NoRoom), found
    return [one.source for one in found]


def test_the_least_recently_used_goes_first_and_no_more_than_must():
    three = kept(30, 10, 20)
    assert gone(make_room(three, total=10, left=10, limits=CAP, disk=ROOMY, protected=())) == []
    assert gone(make_room(three, total=40, left=40, limits=CAP, disk=ROOMY, protected=())) == ["o/m1"]
    assert gone(make_room(three, total=70, left=70, limits=CAP, disk=ROOMY, protected=())) == ["o/m1", "o/m2"]


def test_what_is_protected_stays_even_if_it_is_the_oldest():
    three = kept(30, 10, 20)
    assert gone(make_room(three, total=40, left=40, limits=CAP, disk=ROOMY, protected={"o/m1"})) == ["o/m2"]


def test_nothing_goes_in_vain():
    found = make_room(kept(1, 2), total=80, left=80, limits=CAP, disk=ROOMY, protected={"o/m0"})
    assert isinstance(found, NoRoom) and "above the cap" in found.why
    full = Disk(total=1000, free=120)
    found = make_room(kept(1, 2), total=90, left=90, limits=Limits(), disk=full, protected=())
    assert isinstance(found, NoRoom) and "disk are missing" in found.why


def test_a_tenth_of_the_disk_stays_free_unless_something_else_is_said():
    disk = Disk(total=1000, free=150)
    assert gone(make_room(kept(1, 2), total=50, left=50, limits=Limits(), disk=disk, protected=())) == []
    assert gone(make_room(kept(1, 2), total=51, left=51, limits=Limits(), disk=disk, protected=())) == ["o/m0"]
    assert gone(make_room(kept(1, 2), total=150, left=150, limits=Limits(None, 0), disk=disk, protected=())) == []


def test_what_is_there_already_needs_no_room_on_the_disk():
    full = Disk(total=1000, free=100)
    assert gone(make_room([], total=500, left=0, limits=Limits(), disk=full, protected=())) == []


def test_the_room_is_told_in_whole_gib():
    disk = Disk(total=100 * GIB, free=30 * GIB + 5)
    assert room_bytes([Kept("o/m", "c", 2 * GIB + 1, 0.0)], Limits(), disk) == 22 * GIB
    assert room_bytes([], Limits(cap_bytes=7 * GIB + 9), disk) == 7 * GIB
    assert room_bytes([], Limits(), Disk(total=100 * GIB, free=GIB)) == 0


KEPT = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=8)


@given(KEPT, st.integers(0, 200), st.integers(0, 200), st.sets(st.integers(0, 7)))
def test_room_made_is_within_the_cap_and_none_younger_goes_before_an_older(found, total, cap, stay):
    all_kept = [Kept(f"o/m{n}", "c", bytes, float(at)) for n, (bytes, at) in enumerate(found)]
    protected = {f"o/m{n}" for n in stay}
    limits = Limits(cap_bytes=cap, free_bytes=0)
    made = make_room(all_kept, total=total, left=total, limits=limits, disk=ROOMY, protected=protected)
    loose = [one for one in all_kept if one.source not in protected]
    if isinstance(made, NoRoom):
        assert sum(one.bytes for one in all_kept if one not in loose) + total > cap
        return
    assert sum(one.bytes for one in all_kept if one not in made) + total <= cap or not made
    assert all(one.source not in protected for one in made)
    stayed = [one.used_at for one in loose if one not in made]
    assert not made or not stayed or max(one.used_at for one in made) <= min(stayed)


@pytest.mark.parametrize(
    ("text", "bytes"), [("500GiB", 500 * GIB), ("1.5 TiB", 1536 * GIB), ("4096", 4096), ("", None)]
)
def test_a_cap_is_bytes_or_a_size(text, bytes, tmp_path):
    assert Settings.read(tmp_path, {"FOREBAY_MODELS_CAP": text}).limits.cap_bytes == bytes


def test_a_cap_that_is_no_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="FOREBAY_MODELS_FREE is '10%'"):
        Settings.read(tmp_path, {"FOREBAY_MODELS_FREE": "10%"})
