"""How many models are active, how many will be, and what to hold ready."""

from __future__ import annotations

import click

from controlplane.cli.client import Row
from controlplane.cli.commands.capacity_policy import policy
from controlplane.cli.options import json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, table

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


capacity.add_command(policy)


def _told(found: Row) -> str:
    if not found["newest"]:
        return "Nothing is on record yet: a gateway's first minutes, or manage.py import_activity, begin it."
    parts = [_now(found), table(["MOST AT ONCE IN", "50%", "95%", "99%"], _ahead(found), right=(1, 2, 3))]
    if mine := [one for one in found["standing"] if one["keep_alive_s"] == found["keep_alive_s"]]:
        parts += [_expected(mine[0]), table(["SLOTS", "WAIT", "IDLE"], _slots(mine[0]), right=(0, 1, 2))]
    return "\n\n".join(parts)


def _now(found: Row) -> str:
    newest: Row = found["newest"][0]
    active = UNKNOWN if newest["active"] is None else newest["active"]
    held = found["held"]
    hold = f" To hold: {_slots_and_gpus(held)} ({held['reason']})." if held else ""
    outage = "" if found["outage_since"] is None else " Nothing is being recorded now."
    record = f"{newest['recorded_s'] / 86_400:.1f} days on record"
    return f"{active} of {newest['models']} models active, {record}.{hold}{outage}"


def _slots_and_gpus(held: Row) -> str:
    """134 slots: 120 of 1 GPU, 14 of 2; 148 GPUs on 19 nodes of 8."""
    mine = [one for one in held["sizes"] if one["slots"]]
    sizes = ", ".join(f"{one['slots']} of {one['gpus']}{' GPU' if one['gpus'] == 1 else ''}" for one in mine)
    nodes = f" on {held['nodes']} nodes of {held['node_gpus']}" if held["nodes"] else ""
    assumed = f", {held['assumed']} models taken to need one each" if held["assumed"] else ""
    return f"{held['slots']} slots{f': {sizes}' if len(mine) > 1 else ''}; {held['gpus']} GPUs{nodes}{assumed}"


def _ahead(found: Row) -> list[list[str]]:
    places = [found["levels"].index(level) for level in (0.5, 0.95, 0.99)]
    return [[AHEAD[one["horizon_s"]], *(str(one["values"][place]) for place in places)] for one in found["newest"]]


def _expected(one: Row) -> str:
    return (
        f"E[m] {one['expected']:.1f} at a keep-alive of {one['keep_alive_s']} s, by {one['days']:.1f} days "
        f"(Aegaeon's formula: {one['aegaeon']:.1f}); {one['activations_per_hour']:.1f} activations an hour."
    )


def _slots(one: Row) -> list[list[str]]:
    """Where at most so many wait: a line each."""
    lines = []
    for most in (0.1, 0.05, 0.01, 0.001):
        if (point := next((point for point in one["curve"] if point[1] <= most), None)) is not None:
            lines.append([f"{point[0]:.0f}", f"{point[1]:.2%}", f"{point[2]:.1f}"])
    return lines
