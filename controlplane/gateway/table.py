"""What the gateway knows of keys, deployments and engines: an immutable table. Nothing here runs on a request's
path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone

from controlplane.domain.budgets import end_of, is_used_up, month_of, refusal
from controlplane.domain.routing import Most, Ready
from controlplane.fleet import selectors
from controlplane.fleet.selectors import ServedRow
from controlplane.gateway import keys
from controlplane.gateway.models import ApiKey
from controlplane.gateway.reporting import Reporting
from controlplane.teams.budgets import HARD_LIMITS, budgets

log = structlog.get_logger(__name__)
OPEN_KEYS = (
    "SELECT key_hash, id, deployments, requests_per_minute, expires_at, team_id FROM gateway_apikey "
    "WHERE revoked_at IS NULL ORDER BY id"
)


Process = tuple[int, str, int, float]


@dataclass(frozen=True, slots=True)
class Engine:
    """One ready engine. `head` is the constant part of each request to it."""

    id: int
    name: str  # node/partition
    host: str
    port: int
    head: bytes
    generation: int = 0  # of its partition: what it has confirmed
    since: float = 0.0  # when it became ready; with the rest it tells one process from the next

    @property
    def process(self) -> Process:
        """The same as long as the process is, whatever its role."""
        return self.id, self.host, self.port, self.since

    @classmethod
    def at(
        cls, id: int, name: str, endpoint: str, key: str, *, generation: int = 0, since: float = 0.0
    ) -> Engine | None:
        """None when the endpoint or the key cannot be used; both come from outside this process."""
        try:
            parts = urlsplit(endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if (
            parts.scheme != "http"
            or not host
            or not port
            or not (key + host).isascii()
            or not (key + host).isprintable()
        ):
            return None
        named = f"[{host}]" if ":" in host else host
        head = f"host: {named}:{port}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        return cls(id, name, host, port, head.encode("ascii"), generation, since)


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment as clients ask for it."""

    name: str
    created: int
    min_transfer_tokens: int = 0
    block_tokens: int = 32  # of a KV block, or more
    ready: Ready = field(default_factory=Ready)
    most: Most | None = None  # requests at one engine
    pooled: bool = False  # woken when it is asked for
    pair: bool = False  # as prefill and decode: it waits for both
    overflow: bool = False  # the pool lends it a slot when its own engines are full, or there are none

    @property
    def has_engine(self) -> bool:
        """One that can answer clients."""
        return bool(self.ready.aggregated or self.ready.decode or self.ready.overflow)


Known = tuple[Served, tuple[str, ...]]  # without engines, and its aliases


@dataclass(frozen=True, slots=True)
class Over:
    """A budget that is used up, until then (unix s)."""

    until: float
    message: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key that opens the gateway. No id: this installation's own."""

    id: int | None = None
    deployments: frozenset[str] = frozenset()  # empty: all
    requests_per_minute: int | None = None
    expires_at: float | None = None
    over: Over | None = None

    def opens(self, deployment: str) -> bool:
        return not self.deployments or deployment in self.deployments


@dataclass(frozen=True, slots=True)
class Table:
    keys: dict[str, Key] = field(default_factory=dict)  # by hash
    served: dict[str, Served] = field(default_factory=dict)  # by name and alias
    engines: dict[int, Engine] = field(default_factory=dict)
    read_at: float = 0.0  # monotonic


def read(
    now: datetime | None = None, reporting: Reporting | None = None, known: Sequence[Known] | None = None
) -> Table:
    """Read the whole table from the database. `reporting`: what is known of the nodes' reports, `known` of deployments,
    if not read anew."""
    now = now or timezone.now()
    reporting = reporting or reporting_now(Reporting())
    by_deployment: dict[str, dict[str, list[int]]] = {}
    engines: dict[int, Engine] = {}
    for row in selectors.routing_rows(_judged_at(now, reporting)):
        engine = Engine.at(
            row.partition, row.name, row.endpoint, row.engine_key, generation=row.generation, since=row.phase_since
        )
        if engine:
            engines[engine.id] = engine
            role = "overflow" if row.overflow else row.role
            by_deployment.setdefault(row.deployment, {}).setdefault(role, []).append(engine.id)
        else:
            log.warning("an engine's endpoint cannot be used", engine=row.name, endpoint=row.endpoint)
    served: dict[str, Served] = {}
    for asleep, aliases in known_as() if known is None else known:
        one, roles = asleep, by_deployment.get(asleep.name)
        if roles:
            ready = {role: tuple(ids) for role, ids in roles.items()}
            one = replace(asleep, ready=replace(asleep.ready, **ready))
        for alias in aliases:
            served.setdefault(alias, one)
        served[one.name] = one
    return Table(_keys(now), served, engines, time.monotonic())


def known_as() -> list[Known]:
    """Every deployment, as if it had no engine, with its aliases."""
    return [
        (
            Served(
                row.deployment, int(row.created_at), row.min_transfer_tokens, row.block_tokens,
                Ready(alike=row.roles_alike), _most(row), pooled=row.mode == "pooled", pair=row.pair,
                overflow=row.overflow,
            ),
            row.aliases,
        )
        for row in selectors.served_rows()
    ]  # fmt: skip


def state(now: datetime, reporting: Reporting) -> tuple[tuple[object, object], object, object]:
    """The same as long as `read` gives the same table, but for keys that expire: whoever shows one is asked anyway."""
    with connection.cursor() as cursor:
        cursor.execute(OPEN_KEYS)
        keys_now = cursor.fetchall()
        cursor.execute(HARD_LIMITS)
        limits = cursor.fetchall(), month_of(now)
        return selectors.routing_state(_judged_at(now, reporting)), keys_now, limits


def _judged_at(now: datetime, reporting: Reporting) -> datetime:
    return min(now, reporting.reference or now)


def _most(row: ServedRow) -> Most | None:
    most = Most(row.prefill_max_requests, row.decode_max_requests, row.aggregated_max_requests)
    return None if most == Most() else most


def reporting_now(before: Reporting) -> Reporting:
    newest = selectors.last_heard()
    return before.heard(newest, timedelta(seconds=settings.SILENT_AFTER_S))


def _keys(now: datetime) -> dict[str, Key]:
    found = {keys.hash_of(keys.internal(settings.SECRET_KEY)): Key()}
    rows = ApiKey.objects.filter(revoked_at=None).values_list(
        "key_hash", "id", "deployments", "requests_per_minute", "expires_at", "team"
    )
    over = _used_up(now)
    for key_hash, id, deployments, per_minute, expires_at, team in rows:
        if expires_at is None or expires_at > now:
            until = expires_at.timestamp() if expires_at else None
            found[key_hash] = Key(id, frozenset(deployments), per_minute, until, over.get(team))
    return found


def _used_up(now: datetime) -> dict[int, Over]:
    """By team: a hard limit that this month has come to."""
    month, found = month_of(now), {}
    for budget in budgets(now):
        spent = budget.spent_in(month)
        if budget.hard is not None and is_used_up(budget.hard, spent):
            until = end_of(month)
            message = refusal(budget.name, budget.hard, spent, settings.CURRENCY, until)
            found[budget.team] = Over(until.timestamp(), message)
    return found
