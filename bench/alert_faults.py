"""Each default alert on a simulated fleet: a fault is put on it, the alert fires; it is taken back, and the alert ends.

    python -m bench.alert_faults [--quick]

A real web process, gateway, worker with its beat, recorder and Valkey; 24 nodes played over the real uplink; a webhook
and a mail server on this machine. What is shortened are the rules' for-durations, to 2 s; how long a thing must be well
before its alert ends is as always. All messages are counted: one for the beginning, one for the end, to each target.

--quick: without the faults whose alerts take minutes to end (latency budgets, KV transfers, the brake), and a node is
silent after 12 s rather than 30.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from controlplane.domain.alert_rules import KINDS
from tests.alerts.sinks import MailSink, WebSink, mail_sink, web_sink
from tests.browser.running import PYTHON, Running, eventually

NODES, GPUS = 24, 4
FOR_S = 2.0
PERIOD_S = 2.0  # two reports
TTFT_MODEL, ITL_MODEL = "sim-model-13", "sim-model-14"  # each node serves a model of its own
BRAKE = [f"sim-{number:04d}" for number in range(17, 25)]  # a third of the nodes
Row = dict[str, Any]


@dataclass(slots=True)
class Fault:
    """`lines` put it on the fleet. `told`: the alerts that it must make, as (rule, subject), and no others."""

    name: str
    told: list[tuple[str, str]]
    lines: list[str] = field(default_factory=list)
    put_at: float = 0.0
    ended_at: float = 0.0


def of_nodes() -> list[Fault]:
    subjects = {
        "node-silent": ("silence sim-0001", "sim-0001"),
        "gpu-lost": ("lose sim-0002/3", "sim-0002/gpu3"),
        "gpu-ecc": ("ecc sim-0003/1", "sim-0003/gpu1"),
        "gpu-throttling": ("throttle sim-0004/0", "sim-0004/gpu0"),
        "gpu-hot": ("hot sim-0005/2", "sim-0005/gpu2"),
        "gpu-foreign": ("foreign sim-0006/1", "sim-0006/gpu1"),
        "engine-crash-looping": ("crash-loop sim-0007/p1", "sim-0007/p1"),
        "kv-full": ("kv-full sim-0008/p1", "sim-0008/p1"),
        "disk-low": ("disk-low sim-0011", "sim-0011"),
        "agent-version": ("old-version sim-0012", "sim-0012"),
        "clock-skew": ("skew sim-0013 40", "sim-0013"),
    }
    return [Fault(line, [(rule, subject)], [line]) for rule, (line, subject) in subjects.items()]


def slow() -> list[Fault]:
    """Those whose alerts take minutes to end."""
    slow_tokens = [f"slow-tokens sim-0015/{part} 0.5" for part in ("p1", "p2")]
    silenced = [("brake-on", "the brake"), *(("node-silent", name) for name in BRAKE)]
    return [
        Fault("expire-kv sim-0009/p0", [("kv-transfers", "sim-0009/p0")], ["expire-kv sim-0009/p0"]),
        Fault("fail-kv sim-0010/p1", [("kv-transfers", "sim-0010/p1")], ["fail-kv sim-0010/p1"]),
        Fault("slow-first sim-0014/p0 2", [("slo-ttft", TTFT_MODEL)], ["slow-first sim-0014/p0 2"]),
        Fault("slow-tokens sim-0015/p1, p2 0.5", [("slo-itl", ITL_MODEL)], slow_tokens),
        Fault("silence of a third of the nodes", silenced, [f"silence {name}" for name in BRAKE]),
    ]


class Scenario:
    def __init__(self, site: Running, web: WebSink, post: MailSink, *, quick: bool) -> None:
        self.site, self.web, self.post, self.quick = site, web, post, quick
        self._fleet: subprocess.Popen[str] | None = None
        self._headers: dict[str, str] = {}
        self._key = ""

    # --- what runs ----------------------------------------------------------------------------------------

    def up(self) -> None:
        self.site.environ |= {"FOREBAY_SMTP_URL": self.post.url, "FOREBAY_SILENT_AFTER_S": "10"}
        self.site.start()
        password = self.site.make_admin()
        made = httpx.post(f"{self.site.web}/api/v1/tokens", auth=("admin", password), json={}, timeout=30)
        self._headers = {"Authorization": f"Token {made.raise_for_status().json()['token']}"}
        self._key = self.site.manage("create_api_key", "bench").strip()
        self.site.spawn(
            "worker", PYTHON, "-m", "celery", "-A", "controlplane.celery", "worker", "-B", "-P", "solo",
            "-Q", "control", "-s", str(self.site.home / "beat"), "--without-gossip", "--without-mingle",
            "-l", "WARNING",
        )  # fmt: skip
        self._play()
        self._configure()

    def down(self) -> None:
        if self._fleet is not None:
            self._fleet.terminate()
            self._fleet.wait(20)
        self.site.stop()

    def _play(self) -> None:
        command = [sys.executable, "manage.py", "simulate_fleet", "--load=low", "--serve", "--url", self.site.web]
        with (self.site.home / "fleet.log").open("wb") as log:
            self._fleet = subprocess.Popen(
                [*command, f"--nodes={NODES}", f"--gpus={GPUS}", f"--models={NODES}"],
                cwd=Path(__file__).resolve().parent.parent, env=self.site.environ, stdin=subprocess.PIPE,
                stdout=log, stderr=log, text=True,
            )  # fmt: skip
        eventually(lambda: "simulated nodes report" in self.site.log("fleet"), within_s=150, what="the fleet")
        wanted = lambda: [row for row in self.rows("/partitions?page_size=200") if row["deployment"]]  # noqa: E731
        eventually(lambda: all(row["confirmed"] for row in wanted()), within_s=150, what="engines ready")

    def _configure(self) -> None:
        for rule in self.rows("/alert-rules?page_size=50"):
            change = {"for_s": FOR_S} if rule["for_s"] > FOR_S else {}
            if self.quick and rule["key"] == "node-silent":
                change["threshold"] = 12
            if change:
                self.rest("PATCH", f"/alert-rules/{rule['id']}", json=change)
        for name, kind, address in (("hook", "webhook", self.web.url), ("post", "email", "ops@example.org")):
            body = {"name": name, "kind": kind, "address": address, "min_severity": "info"}
            self.rest("POST", "/alert-targets", json=body)
        for name, target in ((TTFT_MODEL, {"slo_ttft_ms": 1000}), (ITL_MODEL, {"slo_itl_ms": 200})):
            (row,) = self.rows(f"/deployments?name={name}")
            self.rest("PATCH", f"/deployments/{row['id']}", json=target)

    # --- faults -------------------------------------------------------------------------------------------

    def put(self, *faults: Fault) -> None:
        for fault in faults:
            self.say(*fault.lines)
            fault.put_at = time.time()

    def end(self, *faults: Fault) -> None:
        for fault in faults:
            self.say(*(f"clear {line.split()[1]}" for line in fault.lines))
            fault.ended_at = time.time()

    def say(self, *lines: str) -> None:
        assert self._fleet is not None and self._fleet.stdin is not None
        self._fleet.stdin.write("".join(f"{line}\n" for line in lines))
        self._fleet.stdin.flush()

    def kill_gateway(self) -> Fault:
        name = f"{socket.gethostname()}:{self.site.gateway_port}"
        fault = Fault("kill -9 of the gateway", [("gateway-gone", name)])
        process = self.site.processes.pop("gateway")
        process.kill()
        process.wait()
        fault.put_at = time.time()
        return fault

    def start_gateway(self, fault: Fault) -> None:
        port = str(self.site.gateway_port)
        self.site.spawn("gateway", PYTHON, "manage.py", "gateway", "--host", "127.0.0.1", "--port", port)
        self.site.wait_for(f"{self.site.gateway}/health")
        fault.ended_at = time.time()
        eventually(lambda: self.ask(TTFT_MODEL, 1, 1) == 1, within_s=30, what="an answer through the new gateway")

    # --- what is told -------------------------------------------------------------------------------------

    def await_told(self, transition: str, faults: list[Fault], within_s: float) -> None:
        def missing() -> list[str]:
            told = set(self.web.transitions)
            wanted = [(rule, subject) for fault in faults for rule, subject in fault.told]
            by_web = [" ".join(pair) for pair in wanted if (transition, *pair) not in told]
            return by_web + [f"{' '.join(pair)} by mail" for pair in wanted if not self.letters(transition, *pair)]

        try:
            eventually(lambda: not missing(), within_s=within_s, what=transition)
        except AssertionError:
            print(f"  not {transition} within {within_s:.0f} s: {'; '.join(missing())}", flush=True)

    def letters(self, transition: str, rule: str, subject: str) -> int:
        """Lines of letters that tell of it."""
        word = "Resolved" if transition == "resolved" else KINDS[rule].severity.capitalize()
        line = f"{word}: {KINDS[rule].title}, {subject}"
        return sum(found.startswith((f"{line}.", f"{line} (")) for found in self.post.lines)

    def rows(self, path: str) -> list[Row]:
        return self.rest("GET", path)["results"]

    def rest(self, method: str, path: str, **more: Any) -> Any:
        reply = httpx.request(method, f"{self.site.web}/api/v1{path}", headers=self._headers, timeout=30, **more)
        assert reply.status_code < 400, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    # --- requests -----------------------------------------------------------------------------------------

    def ask(self, model: str, count: int, tokens: int) -> int:
        """Stream so many answers from the real gateway; how many came whole."""
        return asyncio.run(self._ask(model, count, tokens))

    async def _ask(self, model: str, count: int, tokens: int) -> int:
        gate, whole = asyncio.Semaphore(10), 0
        body = {"model": model, "prompt": "water " * 200, "max_tokens": tokens, "stream": True}

        async def one(session: aiohttp.ClientSession) -> None:
            nonlocal whole
            headers = {"Authorization": f"Bearer {self._key}"}
            url = f"{self.site.gateway}/v1/completions"
            async with gate, session.post(url, json=body, headers=headers) as reply:
                text = await reply.text()
                whole += reply.status == 200 and "[DONE]" in text

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(*(one(session) for _ in range(count)))
        return whole


def play(scenario: Scenario) -> list[Fault]:
    """All faults, most of them at once, each on nodes of its own."""
    time.sleep(12)  # a look of all rules at the fleet that is well
    faults = of_nodes()
    late = [] if scenario.quick else slow()
    scenario.put(*faults, *late[:4])
    if late:
        time.sleep(PERIOD_S)  # engines hear of a fault with their node's next report
        asked = scenario.ask(TTFT_MODEL, 20, 2) + scenario.ask(ITL_MODEL, 20, 4)
        print(f"  {asked} slow answers of the stand-in engines through the gateway", flush=True)
        time.sleep(PERIOD_S)  # and the gateway writes its records within a second
    gone = scenario.kill_gateway()
    scenario.await_told("fired", [*faults, *late[:4], gone], within_s=110)
    scenario.end(*faults, *late[:4])
    scenario.start_gateway(gone)
    if late:
        asked = scenario.ask(TTFT_MODEL, 200, 2) + scenario.ask(ITL_MODEL, 120, 4)
        print(f"  {asked} quick ones", flush=True)
    scenario.await_told("resolved", [*faults, gone], within_s=180)
    if late:
        scenario.put(late[4])
        scenario.await_told("fired", late[4:], within_s=110)
        scenario.end(late[4])
        scenario.await_told("resolved", late, within_s=500)
    return [*faults, gone, *late]


def judge(scenario: Scenario, faults: list[Fault]) -> tuple[list[Row], list[str]]:
    """A row for each alert that was to come, and what else came."""
    alerts = {(row["rule"], row["subject"]["name"]): row for row in scenario.rows("/alerts?page_size=200")}
    web, rows = Counter(scenario.web.transitions), []
    for fault in faults:
        for rule, subject in fault.told:
            alert = alerts.get((rule, subject), {})
            told = [web["fired", rule, subject], web["resolved", rule, subject]]
            mailed = [scenario.letters(transition, rule, subject) for transition in ("fired", "resolved")]
            rows.append(
                {
                    "rule": rule, "subject": subject, "fault": fault.name,
                    "fired_s": _between(fault.put_at, alert.get("fired_at")),
                    "cleared_s": _between(fault.ended_at, alert.get("resolved_at")),
                    "webhook": told, "mail": mailed,
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


def report(rows: list[Row], others: list[str], tell: Callable[[str], None] = print) -> Row:
    tell(f"  {'rule':<21} {'fault':<32} {'fired after':>11} {'cleared after':>13}   webhook  mail (begun, ended)")
    for row in rows:
        times = [f"{row[name]:.1f} s" if row[name] is not None else "never" for name in ("fired_s", "cleared_s")]
        told = "   ".join(f"{row[name][0]}, {row[name][1]}" for name in ("webhook", "mail"))
        tell(f"  {row['rule']:<21} {row['fault']:<32} {times[0]:>11} {times[1]:>13}   {told}")
    tried = {row["rule"] for row in rows}
    tell(f"  not tried: {', '.join(key for key in KINDS if key not in tried)}")
    tell(f"  alerts of nothing that was done: {', '.join(others) or 'none'}")
    once = sum(row["webhook"] == [1, 1] and row["mail"] == [1, 1] for row in rows)
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
    found = report(rows, others)
    print(f"RESULT {json.dumps(found)}")
    sys.exit(found["told_once"] < found["alerts"] or bool(others))


if __name__ == "__main__":
    main()
