"""Each default alert on a simulated fleet: a fault is put on it, the alert fires; it is taken back, and the alert ends.

    python -m bench.alert_faults [--quick]

A real web process, gateway, worker with its beat, recorder and Valkey; 24 nodes played over the real uplink; a webhook
and a mail server on this machine. What is shortened are the rules' for-durations, to 2 s; how long a thing must be well
before its alert ends is as always. All messages are counted: one for the beginning, one for the end, to each target.

--quick: how alerts begin, not how they end, without those that take minutes (latency budgets, KV transfers, the brake,
the pool, a team's budget), on 13 nodes; a node is silent after 12 s rather than 30, and memory errors count after 2 s,
so that all is told in one message.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bench._alert_site import ITL_MODEL, PERIOD_S, TTFT_MODEL, Fault, Row, Scenario, of_nodes, slow
from controlplane.domain.alert_rules import KINDS
from tests.alerts.sinks import mail_sink, web_sink
from tests.browser.running import Running


def play(scenario: Scenario) -> list[Fault]:
    """All faults, most of them at once, each on nodes of its own."""
    scenario.await_a_look()
    faults = of_nodes()
    late = [] if scenario.quick else slow()
    spent = [] if scenario.quick else [scenario.spend()]  # counted within minutes
    scenario.put(*faults, *late[:4])
    if not scenario.quick:
        time.sleep(PERIOD_S)  # engines hear of a fault with their node's next report
        asked = scenario.ask(TTFT_MODEL, 20, 2) + scenario.ask(ITL_MODEL, 20, 4)
        print(f"  {asked} slow answers of the stand-in engines through the gateway", flush=True)
        time.sleep(PERIOD_S)  # and the gateway writes its records within a second
    gone = scenario.kill_gateway()
    scenario.await_told("fired", [*faults, *late[:4], gone], within_s=110)
    if scenario.quick:
        return [*faults, gone]
    scenario.end(*faults, *late[:4])
    scenario.start_gateway(gone)
    asked = scenario.ask(TTFT_MODEL, 200, 2) + scenario.ask(ITL_MODEL, 120, 4)
    print(f"  {asked} quick ones", flush=True)
    late.append(scenario.ask_of_the_pool())
    scenario.await_told("fired", late[-1:], within_s=80)
    scenario.give_slot(late[-1])
    late.append(scenario.break_a_start())
    scenario.await_told("fired", late[-1:], within_s=120)
    scenario.mend_the_start(late[-1])
    scenario.await_told("fired", spent, within_s=300)
    scenario.raise_budget(spent[0])
    scenario.await_told("resolved", [*faults, gone], within_s=180)
    scenario.put(late[4])
    scenario.await_told("fired", late[4:5], within_s=110)
    scenario.end(late[4])
    scenario.await_told("resolved", [*late, *spent], within_s=500)
    return [*faults, gone, *late, *spent]


def judge(scenario: Scenario, faults: list[Fault]) -> tuple[list[Row], list[str]]:
    """A row for each alert that was to come, and what else came."""
    alerts: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(scenario.rows("/alerts?page_size=200"), key=lambda row: row["fired_at"] or ""):
        alerts.setdefault((row["rule"], row["subject"]["name"]), []).append(row)
    web, rows = Counter(scenario.web.transitions), []
    for fault in faults:
        for rule, subject in fault.told:
            every = alerts.get((rule, subject), [{}])
            alert = every[0]
            told = [web["fired", rule, subject], web["resolved", rule, subject]]
            mailed = [scenario.letters(transition, rule, subject) for transition in ("fired", "resolved")]
            rows.append(
                {
                    "rule": rule, "subject": subject, "fault": fault.name,
                    "fired_s": _between(fault.put_at, alert.get("fired_at")),
                    "cleared_s": _between(fault.ended_at, alert.get("resolved_at")),
                    "webhook": told, "mail": mailed,
                    "so_often": [sum(bool(one.get(name)) for one in every) for name in ("fired_at", "resolved_at")],
                }
            )  # fmt: skip
    wanted = {(rule, subject) for fault in faults for rule, subject in fault.told}
    told = {(rule, subject) for _, rule, subject in web}
    return rows, [" ".join(pair) for pair in sorted((told | alerts.keys()) - wanted)]


def _between(at: float, moment: str | None) -> float | None:
    return None if not moment else round(datetime.fromisoformat(moment).timestamp() - at, 1)


@contextmanager
def running(home: Path, *, quick: bool) -> Iterator[Scenario]:
    with web_sink() as web, mail_sink() as post:
        scenario = Scenario(Running(home), web, post, quick=quick)
        try:
            scenario.up()
            yield scenario
        finally:
            scenario.down()


def report(rows: list[Row], others: list[str], *, ends: bool = True, tell: Callable[[str], None] = print) -> Row:
    tell(f"  {'rule':<21} {'fault':<32} {'fired after':>11} {'cleared after':>13}   webhook  mail (begun, ended)")
    for row in rows:
        times = [f"{row[name]:.1f} s" if row[name] is not None else "-" for name in ("fired_s", "cleared_s")]
        told = "   ".join(f"{row[name][0]}, {row[name][1]}" for name in ("webhook", "mail"))
        tell(f"  {row['rule']:<21} {row['fault']:<32} {times[0]:>11} {times[1]:>13}   {told}")
    tried = {row["rule"] for row in rows}
    tell(f"  not tried: {', '.join(key for key in KINDS if key not in tried)}")
    tell(f"  alerts of nothing that was done: {', '.join(others) or 'none'}")
    # Of a reservation it may be more than one: the forecast may ask for more slots later than were given.
    of = ("webhook", "mail", "so_often")
    counts = [[row[name][: 1 + ends] for name in of] for row in rows]  # of beginnings, and of ends
    once = sum(web == mail == so_often and min(so_often) > 0 for web, mail, so_often in counts)
    return {"rules": len(tried), "alerts": len(rows), "told_once": once, "others": len(others), "table": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder,
        running(Path(folder), quick=options.quick) as scenario,
    ):
        rows, others = judge(scenario, play(scenario))
    found = report(rows, others, ends=not options.quick)
    print(f"RESULT {json.dumps(found)}")
    sys.exit(found["told_once"] < found["alerts"] or bool(others))


if __name__ == "__main__":
    main()
