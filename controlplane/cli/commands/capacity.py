"""How many models are active, how many will be, and what to hold ready."""

from __future__ import annotations

import math

import click

from controlplane.cli.client import Row
from controlplane.cli.commands.capacity_looks import comparisons, sizing, spent
from controlplane.cli.commands.capacity_policy import policy
from controlplane.cli.options import json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, counted, span, table

MOST_WAITING = (0.1, 0.05, 0.01, 0.001)  # shares of activations, a line each
AHEAD = {600: "10 min", 3600: "1 h", 86_400: "24 h"}


@click.group(invoke_without_command=True)
@json_option
@pass_session
@click.pass_context
def capacity(ctx: click.Context, session: Session) -> None:
    """Active models now, the most at once to be expected, and how many slots leave how many activations waiting."""
    if ctx.invoked_subcommand is not None:
        return
    found = session.client.get("capacity", hours="1")
    session.answer(found, lambda: _told(found))


for command in (policy, sizing, spent, comparisons):
    capacity.add_command(command)


def _told(found: Row) -> str:
    if not found["newest"]:
        return _begins(found["beginning"], found["now"])
    parts = [_now(found), table(["MOST AT ONCE IN", "50%", "95%", "99%"], _ahead(found), right=(1, 2, 3))]
    if sizes := _by_size(found):
        parts.append(
            table(["SLOTS OF", "MODELS", "ACTIVE", *AHEAD.values(), "HOLD", "THERE"], sizes, right=range(1, 8))
        )
    if mine := [one for one in found["standing"] if one["keep_alive_s"] == found["keep_alive_s"]]:
        parts += [_expected(mine[0]), table(["SLOTS", "WAIT", "IDLE"], _slots(mine[0]), right=(0, 1, 2))]
        if mine[0]["by_size"]:
            parts.append(table(["WAIT", "SLOTS", "GPUS", "SIZES"], _slots_by_size(mine[0]), right=(0, 1, 2)))
    return "\n\n".join(parts)


def _begins(beginning: Row | None, now: float) -> str:
    """What a first forecast waits for."""
    at_once = "To have it at once, import a history: manage.py import_activity."
    if beginning is None or beginning["recorded_since"] is None:
        gateway = "one is heard." if beginning and beginning["gateways"] else "none is heard: manage.py gateway."
        return f"Nothing is on record yet: a gateway's first minutes begin it, and {gateway}\n{at_once}"
    asked = f"{counted(beginning['models'], 'model')} on record" if beginning["models"] else "nothing was asked yet"
    if beginning["worker_silent"]:
        return f"No forecast yet; {asked}. The control worker, which makes it, is not heard: see its log."
    left = beginning["first_at"] - now
    when = (
        f"The first comes in {math.ceil(left / 60)} min"
        if left > 0
        else "It is being made, which takes a minute or some"
    )
    return f"No forecast yet; {asked}. {when}.\n{at_once}"


def _now(found: Row) -> str:
    newest: Row = found["newest"][0]
    active = UNKNOWN if newest["active"] is None else newest["active"]
    held = found["held"]
    hold = f" To hold: {_slots_and_gpus(held)} ({held['reason']})." if held else ""
    outage = "" if found["outage_since"] is None else " Nothing is being recorded now."
    record = f"{span(newest['recorded_s'])} on record"
    return f"{active} of {newest['models']} models active, {record}.{hold}{outage}"


def _slots_and_gpus(held: Row) -> str:
    """134 slots: 120 of 1 GPU, 14 of 2; 148 GPUs on 19 nodes of 8."""
    mine = [one for one in held["sizes"] if one["slots"]]
    sizes = ", ".join(f"{one['slots']} of {one['gpus']}{' GPU' if one['gpus'] == 1 else ''}" for one in mine)
    nodes = f" on {counted(held['nodes'], 'node')} of {held['node_gpus']}" if held["nodes"] else ""
    assumed = f", {counted(held['assumed'], 'model')} taken to need one each" if held["assumed"] else ""
    whole = f"{counted(held['slots'], 'slot')}{f': {sizes}' if len(mine) > 1 else ''}"
    return f"{whole}; {counted(held['gpus'], 'GPU')}{nodes}{assumed}"


def _ahead(found: Row) -> list[list[str]]:
    places = [found["levels"].index(level) for level in (0.5, 0.95, 0.99)]
    return [[AHEAD[one["horizon_s"]], *(str(one["values"][place]) for place in places)] for one in found["newest"]]


def _by_size(found: Row) -> list[list[str]]:
    """A line a size; of each horizon the most at once as told at 95 and 99%."""
    told = {(one["horizon_s"], of["gpus"]): of for one in found["newest"] for of in one["by_size"]}
    held = {one["gpus"]: one for one in (found["held"] or {"sizes": []})["sizes"]}
    lines = []
    for gpus in sorted({gpus for _, gpus in told}):
        mine = [told.get((horizon, gpus)) for horizon in AHEAD]
        soon = next(one for one in mine if one)
        hold = held.get(gpus)
        lines.append(
            [
                f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs",
                str(soon["models"]),
                UNKNOWN if soon["active"] is None else str(soon["active"]),
                *(_at_most(found["levels"], one) for one in mine),
                *(str(hold[key]) if hold else UNKNOWN for key in ("slots", "there")),
            ]
        )
    return lines


def _at_most(levels: list[float], one: Row | None) -> str:
    return " / ".join(str(one["values"][levels.index(level)]) for level in (0.95, 0.99)) if one else UNKNOWN


def _expected(one: Row) -> str:
    return (
        f"E[m] {one['expected']:.1f} at a keep-alive of {one['keep_alive_s']} s, by {span(86_400 * one['days'])} "
        f"(Aegaeon's formula: {one['aegaeon']:.1f}); {one['activations_per_hour']:.1f} activations an hour."
    )


def _slots(one: Row) -> list[list[str]]:
    """Where at most so many wait: a line each, and one where fewer would wait with no more slots."""
    points = dict.fromkeys(tuple(point) for most in MOST_WAITING if (point := _point(one["curve"], most)))
    return [[f"{slots:.0f}", f"{waiting:.2%}", f"{idle:.1f}"] for slots, waiting, idle in points]


def _slots_by_size(one: Row) -> list[list[str]]:
    """The same where each size has slots of its own."""
    lines = []
    for most in MOST_WAITING:
        found = [(size["gpus"], _point(size["curve"], most)) for size in one["by_size"]]
        slots = {gpus: int(point[0]) for gpus, point in found if point}
        if len(slots) == len(found):
            sizes = ", ".join(f"{count} of {gpus}" for gpus, count in slots.items())
            gpus = sum(gpus * count for gpus, count in slots.items())
            lines.append([f"{most:.2%}", str(sum(slots.values())), str(gpus), sizes])
    return lines


def _point(curve: list[list[float]], most: float) -> list[float] | None:
    """The first of the curve where at most so many wait."""
    return next((point for point in curve if point[1] <= most), None)
