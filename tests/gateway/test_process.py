"""The gateway as it runs: `manage.py gateway` in a process of its own, its table and records in the database,
asked by the official client. And how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import openai
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import verified
from controlplane.fleet.models import Partition
from controlplane.gateway import services
from controlplane.gateway.models import DemandMinute, RequestRecord
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.gateway.collector import Collector
from tests.standin_engine import Standin
from tests.standin_fabric import Fabric

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def engines() -> Iterator[tuple[Standin, Standin]]:
    """A prefill and a decode engine in a thread of their own."""
    fabric, ready = Fabric(), threading.Event()
    pair = Standin("p", "key-p", fabric=fabric), Standin("d", "key-d", fabric=fabric)
    loop = asyncio.new_event_loop()

    def serve() -> None:
        for engine in pair:
            loop.run_until_complete(engine.start())
        ready.set()
        loop.run_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(10)
    yield pair
    asyncio.run_coroutine_threadsafe(_stop(pair), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _stop(engines: tuple[Standin, ...]) -> None:
    for engine in engines:
        await engine.stop()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def fleet(engines: tuple[Standin, Standin]) -> None:
    deployment, node = make_deployment("tiny"), make_node("n1")
    for role, engine in zip(("prefill", "decode"), engines, strict=True):
        partition = make_partition(node, name=role, deployment=deployment, role=role, engine_key=engine.key)
        make_ready(partition, endpoint=engine.url)


@pytest.fixture
def gateway(fleet: None, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    log = tmp_path / "gateway.log"
    environ = {**os.environ, "FOREBAY_DATABASE_URL": database_url(), "FOREBAY_SECRET_KEY": settings.SECRET_KEY}
    environ |= {"FOREBAY_HOME": str(tmp_path), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    with log.open("wb") as out:
        command = [sys.executable, "manage.py", "gateway", "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=out)
    try:
        yield process, f"http://127.0.0.1:{port_in(log, process)}"
    finally:
        process.kill()
        process.wait()


def database_url() -> str:
    entry = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{entry['NAME']}"
    return f"postgresql://{entry['USER']}@/{entry['NAME']}?host={entry['HOST']}"  # tests.postgres listens on a socket


def port_in(log: Path, process: subprocess.Popen[bytes], within_s: float = 60.0) -> int:
    until = time.monotonic() + within_s
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines():
            if "the gateway listens" in line:
                return int(line.rpartition("port=")[2])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def eventually(true: object, within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_official_client_streams_and_all_of_it_is_recorded(
    gateway: tuple[subprocess.Popen[bytes], str], actor: Actor
) -> None:
    process, url = gateway
    key, plain = services.create_key(name="one", deployments=["tiny"], actor=actor)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=plain, max_retries=0)
    eventually(lambda: httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {plain}"}).status_code == 200)

    whole = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=3)
    stream = client.completions.create(model="tiny", prompt="hi", max_tokens=4, stream=True)

    assert whole.choices[0].message.content == "t0 t1 t2"
    assert "".join(chunk.choices[0].text for chunk in stream) == " t0 t1 t2 t3"
    eventually(lambda: RequestRecord.objects.count() == 2)
    rows = RequestRecord.objects.order_by("id")
    assert {row.api_key_id for row in rows} == {key.pk}
    assert [(row.outcome, row.path, row.completion_tokens) for row in rows] == [("ok", "two_step", n) for n in (3, 4)]
    assert [row.prefill for row in rows] == ["n1/prefill"] * 2

    services.revoke_key(key.pk, actor=actor)
    eventually(lambda: _refused(client), 15)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert DemandMinute.objects.values_list("deployment", flat=True).distinct().get() == "tiny"
    client.close()


def _refused(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return True
    return False


def test_at_sigterm_what_is_in_flight_ends_and_nothing_new_begins(
    gateway: tuple[subprocess.Popen[bytes], str], engines: tuple[Standin, Standin]
) -> None:
    process, url = gateway
    engines[1].act.itl_s = 0.1
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 15, "stream": True}
    own = {"Authorization": f"Bearer {services.internal_key()}"}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=own, timeout=20) as reply:
        pieces = reply.iter_text()
        first = next(pieces)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: _closed(url))
        text = first + "".join(pieces)
    assert text.endswith("data: [DONE]\n\n")
    assert process.wait(20) == 0
    assert RequestRecord.objects.get().outcome == "ok"


def _closed(url: str) -> bool:
    try:
        httpx.get(f"{url}/health")
    except httpx.ConnectError:
        return True
    return False


def test_a_new_engine_is_verified_and_the_gateway_is_known_to_live(
    gateway: tuple[subprocess.Popen[bytes], str], engines: tuple[Standin, Standin]
) -> None:
    process, _ = gateway
    eventually(lambda: verified.gateway_alive(timezone.now()))
    eventually(lambda: Partition.objects.filter(verified_at=None).count() == 0)
    decode = Partition.objects.get(name="decode")
    began, before = time.monotonic(), len(engines[1].served)

    Partition.objects.filter(pk=decode.pk).update(
        generation=7, observed_generation=7, phase_since=timezone.now() + timedelta(seconds=1)
    )

    eventually(lambda: verified.is_verified(Partition.objects.get(pk=decode.pk)))
    assert time.monotonic() - began < 15.0  # about 0.3 s on an idle machine
    since = list(engines[1].served)[before:]
    asked = [seen.body for seen in since if seen.headers.get("x-request-id", "").startswith("warm-")]
    assert any((body.get("kv_transfer_params") or {}).get("do_remote_prefill") for body in asked)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert not verified.gateway_alive(timezone.now())
    assert not RequestRecord.objects.exists() and not DemandMinute.objects.exists()


def test_a_process_sends_its_traces_where_it_is_told_to(
    collector: Collector, gateway: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = gateway
    _, key = services.create_key(name="one", actor=Actor.system("test"))
    eventually(lambda: httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=20)
    client.completions.create(model="tiny", prompt="What holds water?", max_tokens=2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0

    assert {span.name for span in collector.spans()} == {"text_completion tiny", "prefill", "decode"}
    assert len({span.trace_id for span in collector.spans()}) == 1
