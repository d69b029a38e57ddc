"""Teams: who shares a budget, whose keys and deployments are whose."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.options import json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, table

NONE = "none"


class Money(click.ParamType[float | str, Any]):
    """An amount, or the word none for no limit; what was not given is None."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if str(value) == NONE:
            return NONE
        try:
            amount = Decimal(str(value))
        except ArithmeticError:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} is no amount. Write it as 800 or 99.50, or none for no limit.", param, ctx)
        return float(amount)


team_argument = click.argument("name", metavar="TEAM", shell_complete=names.complete_team)
soft_option = click.option("--soft", type=Money(), help="A month; past it somebody is told.")
hard_option = click.option("--hard", type=Money(), help="A month; past it its keys are refused.")
floor_option = click.option(
    "--floor", type=click.IntRange(min=0), help="GPUs of the pool that its deployments can always have; 0: none."
)
deployment_option = click.option(
    "--deployment", "deployments", multiple=True, shell_complete=names.complete_deployment,
    help="Whose unused time it pays for; may be given again: all of them, not one more. none: of none.",
)  # fmt: skip


@click.group(invoke_without_command=True)
@json_option
@pass_session
@click.pass_context
def team(ctx: click.Context, session: Session) -> None:
    """Teams, their budgets, deployments and numbers of keys."""
    if ctx.invoked_subcommand is None:
        rows = session.client.every("teams")
        session.answer(rows, lambda: _table(rows))


@team.command()
@click.argument("name", metavar="TEAM")
@soft_option
@hard_option
@floor_option
@deployment_option
@json_option
@pass_session
def create(
    session: Session,
    name: str,
    *,
    soft: float | str | None,
    hard: float | str | None,
    floor: int | None,
    deployments: tuple[str, ...],
) -> None:
    """Make TEAM. Admins only."""
    row = session.client.post("teams", {"name": name, **_wanted(soft, hard, floor, deployments)})
    session.answer(row, lambda: _table([row]))


@team.command()
@team_argument
@click.option("--name", "new_name", help="Its new name.")
@soft_option
@hard_option
@floor_option
@deployment_option
@reason_option
@json_option
@pass_session
def change(
    session: Session,
    name: str,
    *,
    new_name: str | None,
    soft: float | str | None,
    hard: float | str | None,
    floor: int | None,
    deployments: tuple[str, ...],
    reason: str,
) -> None:
    """Change what is given of TEAM; its past usage stays its own. Admins only."""
    found = names.team(session.client, name)
    wanted = {**_wanted(soft, hard, floor, deployments), **({"name": new_name} if new_name else {}), "reason": reason}
    row = session.client.patch(f"teams/{found['id']}", wanted)
    session.answer(row, lambda: _table([row]))


@team.command()
@team_argument
@json_option
@pass_session
def remove(session: Session, name: str) -> None:
    """Remove TEAM, which has no API keys and no usage on record. Admins only."""
    found = names.team(session.client, name)
    session.client.delete(f"teams/{found['id']}")
    session.answer({"removed": name}, lambda: f"Removed {name}.")


@team.command()
@click.argument("key", type=click.IntRange(min=1))
@click.argument("name", metavar="[TEAM]", required=False, shell_complete=names.complete_team)
@reason_option
@json_option
@pass_session
def give(session: Session, key: int, name: str | None, reason: str) -> None:
    """Give the API key with the number KEY to TEAM; without TEAM to nobody. Admins only."""
    row = session.client.put(f"keys/{key}/team", {"team": name, "reason": reason})
    session.answer(row, lambda: f"{row['name']} is {row['team'] or 'nobody'}'s.")


def _wanted(soft: float | str | None, hard: float | str | None, floor: int | None, deployments: tuple[str, ...]) -> Row:
    """What was given."""
    limits = {"budget_soft": soft, "budget_hard": hard}
    wanted: Row = {key: None if value == NONE else value for key, value in limits.items() if value is not None}
    if floor is not None:
        wanted["pool_floor"] = floor
    return {**wanted, "deployments": [name for name in deployments if name != NONE]} if deployments else wanted


def _table(rows: list[Row]) -> str:
    if not rows:
        return "There is no team yet. Make one with: forebay team create NAME"
    cells = [
        (row["name"], _limit(row["budget_soft"]), _limit(row["budget_hard"]),
         str(row["pool_floor"] or "none"), str(row["keys"]),
         ", ".join(row["deployments"]) or UNKNOWN)
        for row in rows
    ]  # fmt: skip
    return table(("TEAM", "SOFT LIMIT", "HARD LIMIT", "POOL FLOOR", "KEYS", "DEPLOYMENTS"), cells, right=(1, 2, 3, 4))


def _limit(amount: float | None) -> str:
    return "none" if amount is None else f"{amount:,.2f}"
