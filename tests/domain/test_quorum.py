"""When the brake is on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.quorum import MASS_LOSS, NO_REPORTS, SETTLING, Memory, Rule, Verdict, judge

RULE = Rule()
HOUR = 3600.0
T0 = 1_000_000.0
FRESH = Memory()


def look(seen: dict[int, float], now: float, memory: Memory = FRESH, rule: Rule = RULE) -> Verdict:
    return judge(seen, max(seen.values(), default=None), memory, now, rule)


def fleet(heard: int, silent: int, now: float = T0, since: float = 30.0) -> dict[int, float]:
    """`heard` nodes that report, and `silent` ones after them that stopped `since` seconds ago."""
    return {node: now if node < heard else now - since for node in range(heard + silent)}


@pytest.mark.parametrize(
    ("heard", "silent", "on"),
    [(8, 0, False), (8, 1, False), (1, 1, False), (7, 2, False), (6, 3, True), (7, 3, False), (6, 4, True),
     (1, 2, True), (20, 9, False), (20, 10, True), (0, 0, False)],
)  # fmt: skip
def test_a_third_of_the_nodes_and_two_at_least_put_it_on(heard, silent, on):
    found = look(fleet(heard, silent), T0)
    assert (found.on, found.counted) == (on, heard + silent)
    assert found.cause == (MASS_LOSS if on else "")
    assert found.silent == tuple(range(heard, heard + silent))


def test_one_machine_alone_never_brakes():
    assert not look({1: T0 - 500.0}, T0).on


def test_a_node_that_was_gone_before_is_not_part_of_the_loss():
    old = dict.fromkeys(range(100, 120), T0 - 2 * HOUR)
    found = look(fleet(9, 1) | old, T0)
    assert (found.on, found.counted, found.silent) == (False, 10, (9,))


def test_the_brake_holds_for_as_long_as_the_nodes_are_away():
    seen = fleet(6, 4)
    memory = look(seen, T0).memory
    for hours in range(1, 30):
        now = T0 + hours * HOUR
        found = look({node: now if node < 6 else at for node, at in seen.items()}, now, memory)
        assert found.on and found.silent == (6, 7, 8, 9)
        memory = found.memory


def test_it_lets_go_at_once_when_all_are_back():
    memory = look(fleet(6, 4), T0).memory
    assert not look(fleet(10, 0, T0 + 30), T0 + 30, memory).on


def test_it_lets_go_of_removed_nodes():
    memory = look(fleet(6, 4), T0).memory
    assert not look(fleet(6, 0, T0 + 30), T0 + 30, memory).on


def watch(heard: int, silent: int, since: float, until: float, memory: Memory) -> Verdict:
    """A look each 10 s while that many are heard and that many have been silent for half a minute."""
    now = since
    while True:
        found = look(fleet(heard, silent, now), now, memory)
        if now >= until:
            return found
        memory, now = found.memory, min(now + 10.0, until)


def test_while_some_are_missing_it_waits_a_while_before_it_lets_go():
    memory = look(fleet(6, 4), T0).memory
    early = watch(9, 1, T0 + 5, T0 + 64, memory)
    assert (early.on, early.cause) == (True, SETTLING)
    late = watch(9, 1, T0 + 64, T0 + 65, early.memory)
    assert (late.on, late.silent) == (False, (9,))


def test_a_relapse_begins_the_wait_anew():
    memory = look(fleet(6, 4), T0).memory
    memory = watch(9, 1, T0 + 5, T0 + 45, memory).memory
    memory = watch(6, 4, T0 + 50, T0 + 50, memory).memory
    memory = watch(9, 1, T0 + 55, T0 + 70, memory).memory
    assert watch(9, 1, T0 + 80, T0 + 114, memory).on
    assert not watch(9, 1, T0 + 80, T0 + 115, memory).on


def test_a_fleet_that_is_looked_at_now_and_then_has_no_gap_in_its_reports():
    found = watch(9, 1, T0, T0 + 300, Memory())
    assert (found.on, found.memory.resumed) == (False, None)


def test_when_nobody_is_heard_it_is_on_however_long_that_lasts():
    for gap in (11.0, 600.0, 3 * HOUR, 90 * 24 * HOUR):
        found = look(fleet(10, 0, T0), T0 + gap, Memory(newest=T0))
        assert (found.on, found.cause, found.counted) == (True, NO_REPORTS, 10)


@pytest.mark.parametrize("gap", [11.0, 600.0, 3 * HOUR, 90 * 24 * HOUR])
def test_after_the_control_plane_was_down_the_first_node_heard_says_nothing_of_the_others(gap):
    """Nobody looked meanwhile; the last look was before it went down."""
    memory = look(fleet(10, 0, T0), T0).memory
    back = T0 + gap
    found = look({0: back} | dict.fromkeys(range(1, 10), T0), back, memory)
    assert (found.on, found.counted, len(found.silent)) == (True, 10, 9)

    few = look(fleet(9, 0, back + 2) | {9: T0}, back + 2, found.memory)
    assert (few.on, few.cause) == (True, SETTLING)
    assert look(fleet(10, 0, back + 3), back + 3, few.memory).on is False
    memory = few.memory
    for later in range(10, 60, 10):
        memory = look(fleet(9, 0, back + later) | {9: T0}, back + later, memory).memory
        assert memory.on
    for later in (60, 70):  # since it was put on, and since reports came again
        memory = look(fleet(9, 0, back + later) | {9: T0}, back + later, memory).memory
    assert not memory.on


def test_after_a_long_gap_those_that_stay_away_still_count():
    memory = look(fleet(10, 0, T0), T0).memory
    back = T0 + 5 * HOUR
    for later in (1.0, 11.0, 70.0, 0.9 * HOUR, 2 * HOUR, 40 * HOUR):
        now = back + later
        found = look(fleet(5, 0, now) | dict.fromkeys(range(5, 10), T0), now, memory)
        assert found.on and found.counted == 10
        memory = found.memory


def test_a_look_that_comes_twice_or_late_changes_nothing_but_the_memory_of_it():
    seen = fleet(6, 4)
    once = look(seen, T0)
    assert look(seen, T0, once.memory) == once


def test_a_share_above_one_turns_it_off_for_partial_losses():
    assert not look(fleet(1, 9), T0, rule=replace(RULE, share=2.0)).on


moments = st.floats(0, 4 * HOUR)


@given(st.dictionaries(st.integers(0, 30), moments, max_size=30), moments, st.booleans())
def test_it_is_never_on_without_a_silent_node_and_always_on_when_many_fell_silent(ages, gap, was_on):
    now = T0 + 4 * HOUR
    seen = {node: now - age for node, age in ages.items()}
    memory = Memory(on=was_on, counted=frozenset(seen) if was_on else frozenset(), newest=now - gap)
    found = look(seen, now, memory)
    assert found.silent or not found.on
    recent = [at for at in seen.values() if now - at <= HOUR or was_on]
    lost = [at for at in recent if now - at > RULE.silent_after_s]
    assert set(found.silent) >= {n for n, at in seen.items() if at in lost}
    if found.counted == len(recent) and len(lost) >= max(2, len(recent) / 3):
        assert found.on
    assert found.on == found.memory.on and (found.memory.counted or not found.on)
