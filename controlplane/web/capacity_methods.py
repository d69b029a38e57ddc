"""The comparison of methods as its table shows it, and in a sentence which one is in use and why."""

from __future__ import annotations

from typing import Any

from controlplane.domain.forecast.methods import DEFAULT, NAMES
from controlplane.planning import comparing

UNKNOWN = "–"  # noqa: RUF001


def section(now: float) -> dict[str, Any]:
    newest, last = comparing.own().first(), comparing.own().exclude(result=None).first()
    state = comparing.state_of(newest, now) if newest else ""
    found: dict[str, Any] = {"newest": newest, "state": state, "open": state in {"asked", "running", "lost"}}
    if last is None:
        return found
    used = comparing.choice(last.result)
    rows = [_row(key, score, used) for key, score in last.result["methods"].items()]
    return found | {"last": last, "result": last.result, "methods": rows, "verdict": verdict(last.result)}


def verdict(result: dict[str, Any]) -> str:
    held = {name: at for name in NAMES if (at := comparing.equal_reserve(result, name)) is not None}
    name = {key: result["methods"][key]["name"] for key in held}
    used = comparing.choice(result)
    if DEFAULT not in held:
        return "Too few windows were judged to tell the methods apart; the default is in use."
    others = {key: at for key, at in held.items() if key != DEFAULT}
    if not others:
        return "The default is in use; there is nothing to compare it with."
    best = min(others, key=lambda key: others[key])
    sizes = f"{held[best]:.1f} slots on the mean for 99% of windows, against {held[DEFAULT]:.1f} of the default"
    if used != DEFAULT:
        return f"In use: {name[used]}, since on this history it held {sizes}, {name[DEFAULT]}."
    if result["windows"] < comparing.LEAST_WINDOWS:
        return f"In use: {name[DEFAULT]}, the default; {result['windows']} windows are too few to choose another by."
    if held[best] < held[DEFAULT]:
        return (
            f"In use: {name[DEFAULT]}, the default. The best of the others, {name[best]}, held {sizes}: less than "
            f"{comparing.BETTER:.0%} better, which is no reason to change."
        )
    return (
        f"In use: {name[DEFAULT]}, the default: it held {held[DEFAULT]:.1f} slots on the mean for 99% of windows, the "
        f"best of the others, {name[best]}, {held[best]:.1f}."
    )


def _row(key: str, score: dict[str, Any], used: str) -> dict[str, Any]:
    return {
        "name": score["name"],
        "used": key == used,
        "bound": key not in NAMES,
        "covered95": _percent(score["coverage"]["0.95"]),
        "covered99": _percent(score["coverage"]["0.99"]),
        "reserve": _number(score["mean_reserve"]["0.99"]),
        "equal": _number(score["mean_reserve_at_equal_coverage"]["0.99"]),
        "cold": _percent(score["cold_per_activation"]["0.99"], 2),
        "over": _number(score["held_over_used"]["0.99"], 2),
        "ms": _number(score["ms_per_decision"]),
    }


def _percent(value: float | None, digits: int = 1) -> str:
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}%"


def _number(value: float | None, digits: int = 1) -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f}"
