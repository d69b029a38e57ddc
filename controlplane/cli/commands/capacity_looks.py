"""How many engines a deployment needs, what holding ready came to, and methods of forecasting compared."""

from __future__ import annotations

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.options import Share, json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, figure, moment, table

KINDS = (
    ("aggregated", "aggregated"),
    ("disaggregated", "disaggregated"),
    ("wanted", "more than there is"),
    ("closed_form", "by formulas alone"),
)


@click.command()
@click.argument("deployment", shell_complete=names.complete_deployment)
@click.option("--ttft", "ttft_ms", type=float, help="First token within, ms. Default: the deployment's aim.")
@click.option("--itl", "itl_ms", type=float, help="Between tokens, ms. Default: the deployment's aim.")
@click.option("--headroom", type=float, help="Times the rate that was seen. Default: 1.5.")
@click.option("--hours", type=float, help="Requests of so long ago count. Default: 24.")
@click.option("--rate", "rate_per_s", type=float, help="Instead of what was asked: requests a second,")
@click.option("--isl", type=int, help="tokens of each prompt,")
@click.option("--osl", type=int, help="and of each answer.")
@click.option("--lengths", "lengths_level", type=Share(), help="Tokens of the next hour, so surely. Default: 95%.")
@json_option
@pass_session
def sizing(session: Session, /, *, deployment: str, **aims: float | None) -> None:
    """How many prefill and decode engines DEPLOYMENT needs, by replaying its requests. Takes seconds."""
    asked = {key: str(value) for key, value in aims.items() if value is not None}
    asked["deployment"] = str(names.deployment(session.client, deployment)["id"])
    found = session.client.get_patiently("capacity/sizing", **asked)
    session.answer(found, lambda: _sized(found))


@click.command()
@click.option("--days", type=click.IntRange(1, 62), default=14, show_default=True, help="Of the past, today included.")
@json_option
@pass_session
def spent(session: Session, *, days: int) -> None:
    """Slots held and used by day, as the policy in force would have held, and windows in which that was too little."""
    found = session.client.get("capacity/spent", days=str(days))
    session.answer(found, lambda: _spent(found))


@click.command()
@json_option
@pass_session
def comparisons(session: Session) -> None:
    """Methods of forecasting, compared on this installation's own record, at 99%."""
    found = session.client.get("capacity/comparisons")
    session.answer(found, lambda: _compared(found))


def _sized(found: Row) -> str:
    demand, slo = found["demand"], found["slo"]
    kinds = [(words, found[kind], kind == found["best"]) for kind, words in KINDS if found[kind]]
    head = (
        f"{found['deployment']['name']}: {demand['rate_per_s']:.2f} requests a second times {demand['headroom']:g}, "
        f"prompts of {demand['isl']:.0f} and answers of {demand['osl']:.0f} tokens; {slo['share']:.1%} of them within "
        f"{slo['ttft_ms']:g} ms to the first token and {slo['itl_ms']:g} ms between tokens."
    )
    rows = [
        [
            f"{words}, best" if best else words,
            str(one["gpus"]),
            f"{one['met']:.1%}",
            f"{one['ttft_ms']:,.0f} ms",
            f"{one['itl_ms']:.1f} ms",
            UNKNOWN if one["prefill_per_decode"] is None else f"{one['prefill_per_decode']:.2f}",
            one["told"],
        ]
        for words, one, best in kinds
    ]
    head += "".join(_ahead(name, found["lengths"], key) for name, key in (("prompts", "isl"), ("answers", "osl")))
    parts = [head, table(["KIND", "GPUS", "WITHIN", "TTFT", "ITL", "P:D", "ENGINES"], rows, right=range(1, 6))]
    if found["missing"]:
        lacking = ", ".join(f"{count} x {gpu}" for gpu, count in found["missing"].items())
        parts.append(f"The fleet lacks {lacking}.")
    return "\n\n".join([*parts, *(f"{note[:1].upper()}{note[1:]}." for note in found["notes"])])


def _ahead(name: str, lengths: Row | None, key: str) -> str:
    told = (lengths or {}).get(key)
    if told is None:
        return ""
    if told["mean"] is None:
        return f"\nOf {name} of the next hour nothing is told: {told['why']}."
    means = ", ".join(f"{value:,.0f} at {100 * float(level):g}%" for level, value in told["mean"].items())
    share = told["covered"]["0.95"]
    held = "none was told before" if share is None else f"{share:.0%} of them held at 95%"
    return f"\nMean {name} of the next hour: {means} ({told['why']}; {held})."


def _spent(found: Row) -> str:
    if not found["days"]:
        return "No window is over yet of which anything is on record."
    headers = ["DAY", "WINDOWS", "SHORT", "HELD H", "USED H", "HELD GPU-H", "USED GPU-H", "COST", "IDLE COST"]
    rows = [_day(one["day"], one) for one in found["days"]]
    shown = table(headers, [*rows, _day("total", found["total"])], right=range(1, len(headers)))
    return shown if found["price"] is not None else f"{shown}\nA GPU-hour has no price: forebay capacity policy"


def _day(name: str, one: Row) -> list[str]:
    hours = (f"{one[key]:,.1f}" for key in ("held_h", "used_h", "held_gpu_h", "used_gpu_h"))
    costs = (UNKNOWN if one[key] is None else f"{one[key]:,.2f}" for key in ("held_cost", "idle_cost"))
    return [name, str(one["windows"]), str(one["short"]), *hours, *costs]


def _compared(found: Row) -> str:
    newest, last = found["newest"], found["last_result"]
    parts = [f"The method that forecasts: {found['method']}."]
    if newest and newest["state"] != "done":
        parts.append(
            f"A comparison is {newest['state']}: {newest['done']} of {newest['of']}. {newest['error']}".rstrip()
        )
    if not last:
        return "\n".join([*parts, "Nothing was compared yet."])
    parts.append(f"Compared at {moment(last['ended_at'])} UTC on {last['windows']} windows, at 99%:")
    rows = [[one["key"], *_score(one)] for one in last["methods"]]
    headers = ["METHOD", "COVERED", "BUSY", "COLD", "RESERVE", "EQUAL"]
    return "\n".join([*parts, table(headers, rows, right=range(1, len(headers)))])


def _score(one: Row) -> list[str]:
    shares = (one[key].get("0.99") for key in ("coverage", "coverage_busy", "cold_per_activation"))
    slots = (one[key].get("0.99") for key in ("mean_reserve", "mean_reserve_at_equal_coverage"))
    return [*(UNKNOWN if value is None else f"{value:.2%}" for value in shares), *(figure(value) for value in slots)]
