"""How busy simulated engines are, and what follows from it. No I/O, no clock; the same seed gives the same curve.

The figures are of no real device. They are consistent with each other: what is asked of an engine makes its running
requests, these its KV use, its tokens and its latencies, and those its devices' utilization, memory, power and heat.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from workers.contract import EngineSample, Histogram, Role

DAY_S = 86_400.0
SHAPES = ("low", "day", "burst")
MAX_RUNNING = 64
PROMPT_TOKENS, OUTPUT_TOKENS = 700.0, 180.0  # of a request, on the mean
KV_BYTES_PER_TOKEN = 131_072  # of an 8-billion-parameter model with 8 KV heads, 16 bits
PREFILL_TPS, DECODE_TPS = 9000.0, 42.0  # of one engine, of one stream
TTFT_LES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0)
ITL_LES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5)
SPREAD = 0.5  # of the log-normal latencies


def demand(shape: str, name: str, at: float, *, seed: int = 0, day_s: float = DAY_S) -> float:
    """Of the deployment `name` at a moment (unix s): 0 idle, 1 all that its engines can do, more: they queue."""
    own = zlib.crc32(f"{seed}/{name}".encode()) / 2**32
    weight = 0.35 + 0.5 * own
    if shape == "low":
        return 0.25 * weight
    daily = weight * (0.55 + 0.45 * math.sin(math.tau * (at / day_s + own)))
    if shape == "day":
        return daily
    # Burst: for one minute of every seven, each deployment at a time of its own, twice as much and half a fleet more.
    return daily * 2 + 0.5 if (at / 60 + 7 * own) % 7 < 1 else daily


@dataclass(slots=True)
class Buckets:
    """Counts of a latency as an engine's histogram has them: parts of requests are counted, as shares of many."""

    les: tuple[float, ...]
    counts: list[float] = field(default_factory=list)
    count: float = 0.0
    sum: float = 0.0

    def add(self, many: float, mean: float) -> None:
        middle = math.log(mean) - SPREAD**2 / 2
        self.counts = self.counts or [0.0] * len(self.les)
        for place, le in enumerate(self.les):
            self.counts[place] += many * 0.5 * (1 + math.erf((math.log(le) - middle) / (SPREAD * math.sqrt(2))))
        self.count += many
        self.sum += many * mean

    def whole(self) -> Histogram:
        counts = self.counts or [0.0] * len(self.les)
        return Histogram(self.les, tuple(round(count, 3) for count in counts), round(self.count, 3), round(self.sum, 4))


@dataclass(frozen=True, slots=True)
class Ills:
    """What faults do to an engine. `first_s`, `token_s`: how much longer the first and each other token takes."""

    kv_full: bool = False
    expires: bool = False
    fails: bool = False
    first_s: float = 0.0
    token_s: float = 0.0


@dataclass(slots=True)
class Engine:
    """The running totals of one simulated engine process."""

    role: Role
    random: Random
    busy: float = 0.0  # 0..1, of its devices
    kv: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    noise: float = 0.0
    prompt: float = 0.0
    generated: float = 0.0
    requests: float = 0.0
    expired: float = 0.0
    failed: float = 0.0
    ttft: Buckets = field(default_factory=lambda: Buckets(TTFT_LES))
    itl: Buckets = field(default_factory=lambda: Buckets(ITL_LES))
    ills: Ills = field(default_factory=Ills)
    is_dead: bool = False
    in_flight: int = 0  # requests that somebody really sent; the rest are made up

    def live(self, asked: float, elapsed_s: float) -> None:
        """`elapsed_s` go by in which so much is asked of it."""
        ills = self.ills
        self.noise = 0.9 * self.noise + self.random.gauss(0.0, 0.03)
        wants = max(0.0, asked * (1 + self.noise))
        self.busy = min(1.0, wants)
        self.running = float(round(MAX_RUNNING * self.busy))
        self.waiting = float(round(MAX_RUNNING * max(0.0, wants - 1.0)))
        self.kv = 0.97 if ills.kv_full else min(0.92, 0.04 + 0.8 * self.busy)
        step_s = self.token_s
        if self.role != Role.DECODE:
            self._prefill(elapsed_s)
        if self.role != Role.PREFILL:
            tokens = self.running * elapsed_s / step_s
            self.generated += tokens
            self.itl.add(tokens, step_s)
        if self.role == Role.DECODE:
            many = self.running * elapsed_s / step_s / OUTPUT_TOKENS
            self.requests += many
            self.prompt += many * PROMPT_TOKENS
            self.ttft.add(many, self.first_s)
        self.expired += elapsed_s * ills.expires
        self.failed += elapsed_s * ills.fails

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a request that somebody really sent is under way."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def began(self, prompt_tokens: int, took_s: float) -> None:
        """The first token of such a request."""
        self.requests += 1
        self.prompt += prompt_tokens
        self.generated += 1
        self.ttft.add(1, took_s)

    def went_on(self, took_s: float) -> None:
        """Another token of it."""
        self.generated += 1
        self.itl.add(1, took_s)

    @property
    def first_s(self) -> float:
        """To the first token of a request that comes now."""
        own = 0.03 + 0.05 * self.busy if self.role == Role.DECODE else 0.09 * (1 + 2 * self.busy**3)
        return own + self._wait_s() + self.ills.first_s

    @property
    def token_s(self) -> float:
        """To each of the others."""
        return (1 / DECODE_TPS) * (1 + 1.2 * self.busy**2) + self.ills.token_s

    def sample(self, *, whole: bool) -> EngineSample:
        """`whole`: with histograms."""
        takes, gives = self.role == Role.DECODE, self.role == Role.PREFILL
        return EngineSample(
            running=self.running + self.in_flight,
            waiting=self.waiting,
            kv_usage=round(self.kv, 4),
            prompt_tokens_total=round(self.prompt),
            generation_tokens_total=round(self.generated),
            external_kv_tokens_total=round(self.prompt) if takes else None,
            computed_tokens_total=0 if takes else round(0.7 * self.prompt),
            cached_tokens_total=0 if takes else round(0.3 * self.prompt),
            preemptions_total=0,
            requests_total=round(self.requests),
            prefix_hits_total=0 if takes else round(0.3 * self.prompt),
            prefix_queries_total=0 if takes else round(self.prompt),
            ttft_sum_s=round(self.ttft.sum, 4),
            ttft_count=round(self.ttft.count, 3),
            itl_sum_s=round(self.itl.sum, 4),
            itl_count=round(self.itl.count, 3),
            nixl_bytes_total=round(self.prompt * KV_BYTES_PER_TOKEN) if takes else None,
            nixl_transfers_total=round(self.requests) if takes else None,
            nixl_transfer_s_total=round(self.requests * 0.012, 3) if takes else None,
            nixl_failed_transfers_total=round(self.failed) if takes else None,
            nixl_failures_total=round(self.failed) if takes else None,
            kv_expired_total=round(self.expired) if gives else None,
            ttft=self.ttft.whole() if whole else None,
            itl=self.itl.whole() if whole and not gives else None,
        )

    def _prefill(self, elapsed_s: float) -> None:
        many = self.busy * PREFILL_TPS * elapsed_s / PROMPT_TOKENS
        self.prompt += many * PROMPT_TOKENS
        self.requests += many
        self.ttft.add(many, self.first_s)

    def _wait_s(self) -> float:
        return self.waiting * 0.04


def power_w(busy: float) -> float:
    """Of a device with a limit of 700 W."""
    return 72.0 + 590.0 * float(busy**0.8)


def warmer(temperature_c: float, busy: float, elapsed_s: float) -> float:
    """A device nears the temperature of its load within a minute."""
    return temperature_c + (34.0 + 42.0 * busy - temperature_c) * min(1.0, elapsed_s / 45.0)
