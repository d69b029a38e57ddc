"""How deeply an engine sleeps and who goes when memory is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.control import make_spec
from workers.config import Settings
from workers.dormancy import FREE_SHARE, GIB, Host, Sleeper, is_rest, level, utilization, without_room

ROOMY = Host(cap=128 * GIB, total=256 * GIB, available=200 * GIB)


def sleeper(number: int, *, gib: int = 5, gpu: str = "G", rest: int = GIB, since: float | None = None) -> Sleeper:
    spec = make_spec(1, model=f"m{number}", gpus=(gpu,))
    return Sleeper(f"m{number}", spec, float(number) if since is None else since, gib * GIB, {gpu: rest})


@pytest.mark.parametrize(
    ("weights", "host", "expected"),
    [
        (16 * GIB, ROOMY, 1),
        (16 * GIB, Host(18 * GIB, 256 * GIB, 200 * GIB), 2),  # 16 and 3 for its process
        (16 * GIB, Host(128 * GIB, 256 * GIB, 30 * GIB), 2),  # a twentieth of the host stays available
        (0, ROOMY, 2),
        (None, ROOMY, 2),
        (16 * GIB, Host(2 * GIB, 256 * GIB, 200 * GIB), 0),
        (0, Host(128 * GIB, 256 * GIB, 12 * GIB), 0),
    ],
)
def test_the_level_follows_from_what_is_left(weights, host, expected):
    assert level(weights, [], host) == expected


def test_what_others_hold_counts():
    others = [sleeper(n, gib=60) for n in (1, 2)]
    assert level(16 * GIB, others, ROOMY) == 2 and level(4 * GIB, others, ROOMY) == 1


def test_the_longest_asleep_goes_first_for_the_host_and_for_the_gpu():
    there = [sleeper(n, gib=50) for n in (3, 1, 2)]
    assert set(without_room(there, ROOMY, [], {})) == {"m1"}
    needs = make_spec(1, model="next", gpus=("G",))
    small = [sleeper(n) for n in (3, 1, 2)]
    assert without_room(small, ROOMY, [needs], {"G": 80 * GIB}) == {}
    gone = without_room(small, ROOMY, [needs], {"G": 30 * GIB})  # of which 2.4 may be held by others
    assert set(gone) == {"m1"} and "needs the memory" in gone["m1"]


def test_the_one_that_is_to_wake_never_goes_for_its_own_sake():
    there = [sleeper(n, gib=100) for n in (1, 2)]
    assert set(without_room(there, ROOMY, [there[0].spec], {"G": 80 * GIB})) == {"m2"}


def test_what_an_engine_takes_of_a_gpu_is_read_from_its_arguments():
    assert utilization(()) == 0.92
    assert utilization(("--gpu-memory-utilization", "0.5")) == utilization(("--gpu_memory_utilization=0.5",)) == 0.5
    assert utilization(("--gpu-memory-utilization", "much")) == 0.92


def test_what_its_devices_say_decides_whether_it_sleeps():
    assert is_rest({"G": GIB}, {"G": 4 * GIB}) == ""
    assert "still holds 5.0 GiB" in is_rest({"G": GIB}, {"G": 6 * GIB})
    assert "does not tell" in is_rest({"G": GIB}, {"G": None}) and "does not tell" in is_rest({"G": 0}, {})


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 12), st.sampled_from("GH")), max_size=6),
    st.integers(1, 200),
    st.integers(0, 200),
    st.floats(0.1, 1.0),
)
def test_whoever_stays_fits(beds, cap, available, share):
    there = [sleeper(n, gib=gib, gpu=gpu, rest=rest * GIB) for n, (gib, rest, gpu) in enumerate(beds)]
    host = Host(cap * GIB, 256 * GIB, available * GIB)
    needs = make_spec(1, model="next", gpus=("G",), args=("--gpu-memory-utilization", str(share)))
    gone = without_room(there, host, [needs], {"G": 80 * GIB, "H": 80 * GIB})
    left = [one for one in there if one.marker not in gone]
    freed = sum(one.host_bytes for one in there if one.marker in gone)
    assert sum(one.host_bytes for one in left) <= host.cap
    assert not left or host.available + freed >= int(host.total * FREE_SHARE)
    assert sum(one.rests.get("G", 0) for one in left) <= 80 * GIB * (1 - share) + 1


def test_the_share_of_memory_is_a_setting(tmp_path):
    told = Settings.read(tmp_path, {"FOREBAY_SLEEP_CAP": "64GiB", "FOREBAY_SLEEP_REST": "2GiB"})
    assert (told.sleep_cap_bytes, told.sleep_rest_bytes) == (64 * GIB, 2 * GIB)
    assert Settings.read(tmp_path, {"FOREBAY_SLEEP_CAP": "0"}).sleep_cap_bytes == 0
    assert Settings.read(tmp_path, {}).sleep_cap_bytes is None
