"""The site of bench.alert_faults: a simulated fleet with faults on it, and who is told of them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from controlplane.domain.alert_rules import KINDS
from tests.alerts.sinks import MailSink, WebSink
from tests.browser.running import PYTHON, Running, eventually

NODES, QUICK_NODES, GPUS = 24, 13, 4
FOR_S = 2.0
PERIOD_S = 2.0  # two reports
LOOK_S = 10.0  # between two looks of the rules
ALL_SEEN_S = 7.0  # from when faults are put until all can be seen: a gateway that is gone is missed last
TTFT_MODEL, ITL_MODEL = "sim-model-13", "sim-model-14"  # each node serves a model of its own
POOLED, SLOT = "sim-pooled", "sim-0016/p3"  # the last partition of each node serves nothing
BROKEN, BAD_SLOT = "sim-broken", "sim-0014/p3"
SPARE = [f"sim-{number:04d}/p3" for number in (4, 5, 6)]
TEAM, PAID_MODEL, PAID_NODE = "sim-team", "sim-model-12", "sim-0013"
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
        self._aside = ThreadPoolExecutor(1)
        self._held: Future[int] | None = None
        self._team = 0
        self._nodes = QUICK_NODES if quick else NODES
        self._reports_at = 0.0  # by the monotonic clock: when all nodes did

    # --- what runs ----------------------------------------------------------------------------------------

    def up(self) -> None:
        self.site.environ |= {"FOREBAY_SMTP_URL": self.post.url, "FOREBAY_SILENT_AFTER_S": "10"}
        self.site.start(gateway=False)
        self._spawn_gateway()
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
        self.site.wait_for(f"{self.site.gateway}/health")
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
                [*command, f"--nodes={self._nodes}", f"--gpus={GPUS}", f"--models={self._nodes}"],
                cwd=Path(__file__).resolve().parent.parent, env=self.site.environ, stdin=subprocess.PIPE,
                stdout=log, stderr=log, text=True,
            )  # fmt: skip
        eventually(lambda: "simulated nodes report" in self.site.log("fleet"), within_s=150, what="the fleet")
        self._reports_at = time.monotonic()
        wanted = lambda: [row for row in self.rows("/partitions?page_size=200") if row["deployment"]]  # noqa: E731
        eventually(lambda: all(row["confirmed"] for row in wanted()), within_s=150, what="engines ready")

    def _configure(self) -> None:
        for rule in self.rows("/alert-rules?page_size=50"):
            # Messages to a target are half a minute apart: what would fire at the first look waits for the others.
            change = {"for_s": FOR_S} if rule["for_s"] > FOR_S or (self.quick and rule["key"] == "gpu-ecc") else {}
            if self.quick and rule["key"] == "node-silent":
                change["threshold"] = 12
            if change:
                self.rest("PATCH", f"/alert-rules/{rule['id']}", json=change)
        for name, kind, address in (("hook", "webhook", self.web.url), ("post", "email", "ops@example.org")):
            body = {"name": name, "kind": kind, "address": address, "min_severity": "info"}
            self.rest("POST", "/alert-targets", json=body)
        targets = () if self.quick else ((TTFT_MODEL, {"slo_ttft_ms": 1000}), (ITL_MODEL, {"slo_itl_ms": 200}))
        for name, target in targets:
            (row,) = self.rows(f"/deployments?name={name}")
            self.rest("PATCH", f"/deployments/{row['id']}", json=target)

    def await_a_look(self) -> None:
        """All rules at the fleet that is well. A quick run counts one while its engines start, and goes on early enough
        between two looks for the next one to see all faults and the one after it to have them fire together."""
        if not self.quick:
            time.sleep(LOOK_S + 2.0)
            return
        time.sleep(max(0.0, self._reports_at + LOOK_S - time.monotonic()))
        beat_at = min(file.stat().st_mtime for file in self.site.home.glob("beat*"))  # written when it begins
        if (left := LOOK_S - (time.time() - beat_at) % LOOK_S) < ALL_SEEN_S:
            time.sleep(left + 0.5)

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
        self._spawn_gateway()
        self.site.wait_for(f"{self.site.gateway}/health")
        fault.ended_at = time.time()
        eventually(lambda: self.ask(TTFT_MODEL, 1, 1) == 1, within_s=30, what="an answer through the new gateway")

    def _spawn_gateway(self) -> None:
        port = str(self.site.gateway_port)
        self.site.spawn("gateway", PYTHON, "manage.py", "gateway", "--host", "127.0.0.1", "--port", port)

    def ask_of_the_pool(self) -> Fault:
        """One slot is to be held and no partition is one; a request for a pooled model, which the gateway holds."""
        self.rest("PATCH", "/capacity/policy", json={"floors": ["Mon-Sun 0:00-0:00 1"], "reason": "bench"})
        self._pooled(POOLED)
        told = [("pool-waiting", POOLED), ("pool-short", "the pool")]
        fault = Fault("a request for a pooled model, no slot", told, put_at=time.time())
        self._held = self._aside.submit(self.ask, POOLED, 1, 4)
        return fault

    def give_slot(self, fault: Fault) -> None:
        self._make_slot(SLOT)
        fault.ended_at = time.time()
        assert self._held is not None and self._held.result(60) == 1, "the held request was not answered"

    def break_a_start(self) -> Fault:
        """Engines end as soon as they start in the one slot that is free."""
        fault = Fault(f"crash-loop {BAD_SLOT}, a slot", [("activation-failing", BROKEN)], [f"crash-loop {BAD_SLOT}"])
        self._pooled(BROKEN)
        self.put(fault)
        time.sleep(PERIOD_S)
        self._make_slot(BAD_SLOT)
        self._held = self._aside.submit(self.ask, BROKEN, 1, 4)
        return fault

    def mend_the_start(self, fault: Fault) -> None:
        self.end(fault)
        assert self._held is not None
        self._held.result(240)
        eventually(lambda: self.ask(BROKEN, 1, 4) == 1, within_s=240, what="the model answers")
        for slot in SPARE:  # two models were active: that is what the forecast may come to ask for, and more
            self._make_slot(slot)

    def spend(self) -> Fault:
        """A model is a team's, and its node costs so much that the month is past both limits at once."""
        self.rest("POST", "/prices", json={"nodes": [PAID_NODE], "per_gpu_hour": 1000, "reason": "bench"})
        team = {"name": TEAM, "budget_soft": 0.01, "budget_hard": 0.02, "deployments": [PAID_MODEL]}
        self._team = self.rest("POST", "/teams", json=team)["id"]
        told = [("budget-soft", TEAM), ("budget-hard", TEAM)]
        return Fault("a team's month is past both limits", told, put_at=time.time())

    def raise_budget(self, fault: Fault) -> None:
        much = {"budget_soft": 900_000, "budget_hard": 1_000_000}
        self.rest("PATCH", f"/teams/{self._team}", json=much)
        fault.ended_at = time.time()

    def _pooled(self, name: str) -> None:
        (model,) = self.rows("/models?name=sim-model-15")
        self.rest("POST", "/deployments", json={"name": name, "model": model["id"], "mode": "pooled"})
        eventually(lambda: name in self._served(), within_s=30, what=f"the gateway knows {name}")

    def _make_slot(self, slot: str) -> None:
        node, name = slot.split("/")
        rows = self.rows("/partitions?page_size=200")
        (pk,) = [row["id"] for row in rows if (row["node"]["name"], row["name"]) == (node, name)]
        self.rest("PATCH", f"/partitions/{pk}", json={"pool": True})

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

    def _served(self) -> set[str]:
        headers = {"Authorization": f"Bearer {self._key}"}
        reply = httpx.get(f"{self.site.gateway}/v1/models", headers=headers, timeout=30)
        return {row["id"] for row in reply.raise_for_status().json()["data"]}

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

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            await asyncio.gather(*(one(session) for _ in range(count)))
        return whole
