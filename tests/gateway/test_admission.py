"""Who may ask what: keys, limits, and errors in the form that OpenAI clients expect."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import openai
import pytest

from controlplane.gateway.table import Key, Over
from tests.gateway.conftest import KEY, MakeSite, Site, eventually


def is_error(reply: httpx.Response, status: int, code: str) -> bool:
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert reply.headers["content-type"] == "application/json"
    return (reply.status_code, error["code"]) == (status, code)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer fb-wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
async def test_without_a_valid_key_nothing_is_served_or_recorded(make_site: MakeSite, header: str) -> None:
    site = await make_site()
    for method, path in (("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
        reply = await site.client.request(method, path, headers={"Authorization": header}, content=b"{}")
        assert is_error(reply, 401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "fb-wrong" not in reply.text
    assert not site.trips()
    assert not site.decode[0].served
    assert "forebay_gateway_unauthorized_total 3.0" in site.gateway.metrics.text().decode()


async def test_an_expired_key_is_refused_at_once(make_site: MakeSite) -> None:
    site = await make_site()
    site.set_keys(**{KEY: Key(id=1, expires_at=time.time() - 1)})
    assert is_error(await site.complete(), 401, "invalid_api_key")
    site.set_keys(**{KEY: Key(id=1, expires_at=time.time() + 60)})
    assert (await site.complete()).status_code == 200


async def test_the_keys_of_a_team_past_its_budget_are_refused_with_the_reason_and_until_when(
    make_site: MakeSite,
) -> None:
    site = await make_site()
    over = Over(time.time() + 3600, "The team search has used 101.00 of its budget of 100.00 USD this month.")
    site.set_keys(**{KEY: Key(id=1, over=over)})
    for reply in (await site.complete(), await site.chat(stream=True)):
        assert is_error(reply, 429, "budget_exceeded")
        assert reply.json()["error"]["type"] == "insufficient_quota"
        assert "The team search has used 101.00" in reply.json()["error"]["message"]
        assert 3590 <= int(reply.headers["retry-after"]) <= 3600
    assert not site.decode[0].served
    assert [(trip.outcome, trip.status) for trip in site.trips()] == [("rejected", 429)] * 2
    assert (await site.client.get("/v1/models")).status_code == 200, "to look costs nothing"
    site.set_keys(**{KEY: Key(id=1, over=Over(time.time() - 1, over.message))})
    assert (await site.complete()).status_code == 200, "the month is over, whatever was read since"


async def test_a_key_that_left_the_table_is_refused(make_site: MakeSite) -> None:
    site = await make_site()
    assert (await site.complete()).status_code == 200
    site.set_keys()
    assert is_error(await site.complete(), 401, "invalid_api_key")


async def test_a_key_opens_only_its_deployments(make_site: MakeSite) -> None:
    site = await make_site()
    site.set_keys(**{KEY: Key(id=1, deployments=frozenset({"other"}))})
    for name in ("tiny", "small"):
        assert is_error(await site.complete(model=name), 404, "model_not_found")
        assert (await site.client.get(f"/v1/models/{name}")).status_code == 404
    assert (await site.client.get("/v1/models")).json() == {"object": "list", "data": []}
    site.set_keys(**{KEY: Key(id=1, deployments=frozenset({"tiny"}))})
    assert (await site.complete(model="small")).status_code == 200


async def test_the_models_are_listed_as_openai_lists_them(make_site: MakeSite) -> None:
    site = await make_site()
    rows = (await site.client.get("/v1/models")).json()
    assert rows["object"] == "list"
    assert [row["id"] for row in rows["data"]] == ["small", "tiny"]
    assert rows["data"][0] == {"id": "small", "object": "model", "created": 1, "owned_by": "forebay"}
    assert (await site.client.get("/v1/models/tiny")).json()["id"] == "tiny"
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=KEY)
    assert [model.id async for model in client.models.list()] == ["small", "tiny"]
    await client.close()


async def test_an_unknown_model_is_not_found(make_site: MakeSite) -> None:
    site = await make_site()
    reply = await site.complete(model="gpt-9")
    assert is_error(reply, 404, "model_not_found")
    assert "gpt-9" in reply.json()["error"]["message"]
    trip = await site.recorded()
    assert (trip.outcome, trip.status, trip.deployment) == ("rejected", 404, ""), "no client fills our names"


async def test_past_the_rate_limit_it_says_when_to_come_again(make_site: MakeSite) -> None:
    site = await make_site()
    site.set_keys(**{KEY: Key(id=1, requests_per_minute=3), "fb-other": Key(id=2, requests_per_minute=3)})
    assert [(await site.complete()).status_code for _ in range(3)] == [200] * 3

    reply = await site.complete()

    assert is_error(reply, 429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 20
    other = await site.client.get("/v1/models", headers={"Authorization": "Bearer fb-other"})
    assert other.status_code == 200
    await eventually(lambda: len(site.trips()) == 4)
    assert (site.trips()[-1].outcome, site.trips()[-1].status) == ("rejected", 429)


async def test_this_installations_own_key_has_no_limits_and_no_id(make_site: MakeSite) -> None:
    site = await make_site()
    site.set_keys(**{"fb-internal": Key()})
    reply = await site.client.post(
        "/v1/completions", json={"model": "tiny", "prompt": "x"}, headers={"Authorization": "Bearer fb-internal"}
    )
    assert reply.status_code == 200
    assert (await site.recorded()).key is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'{"model":"tiny","prompt":"x"} more', None),
        (b'{"prompt":"x"}', "model"),
        (b'{"model":7,"prompt":"x"}', "model"),
        (b'{"model":"","prompt":"x"}', "model"),
        (b'{"model":"tiny"}', "prompt"),
        (b'{"model":"tiny","prompt":"x","stream":"yes"}', "stream"),
        (b'{"model":"tiny","prompt":"x","stream":true,"stream_options":3}', "stream_options"),
        (b'{"model":"tiny","prompt":"x","kv_transfer_params":{"do_remote_prefill":true}}', "kv_transfer_params"),
        (b'{"model":"tiny","prompt":"x","kv_transfer_params":null}', "kv_transfer_params"),
        (b'{"model":"tiny","prompt":"x","\\u006bv_transfer_params":{}}', "kv_transfer_params"),
        (b'{"model":"tiny","prompt":"x","vllm_xargs":{"kv_transfer_params":"y"}}', "kv_transfer_params"),
        (b'{"model":"tiny","prompt":"x","ec_transfer_params":{}}', "ec_transfer_params"),
        (b'{"model":"tiny","prompt":' + b"[" * 200_000 + b"]" * 200_000 + b"}", None),
    ],
)
async def test_a_body_that_is_wrong_is_a_bad_request(make_site: MakeSite, body: bytes, param: str | None) -> None:
    site = await make_site()
    reply = await site.client.post("/v1/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert not site.prefill[0].served and not site.decode[0].served
    assert (await site.recorded()).outcome == "client_error"


async def test_a_request_id_of_the_clients_reaches_no_engine(make_site: MakeSite) -> None:
    site = await make_site()
    await site.complete(request_id="somebody-elses")
    for engine in (site.prefill[0], site.decode[0]):
        assert "request_id" not in engine.bodies()[0]
        assert engine.served[0].headers["x-request-id"].startswith("req-")


async def test_a_body_over_the_limit_is_too_large_whether_announced_or_not(make_site: MakeSite) -> None:
    site = await make_site(body_bytes=10_000)
    body = json.dumps({"model": "tiny", "prompt": "x" * 20_000}).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    assert is_error(await site.client.post("/v1/completions", content=body), 413, "request_too_large")
    assert is_error(await site.client.post("/v1/completions", content=pieces()), 413, "request_too_large")
    assert (await site.complete(prompt="x" * 9_000)).status_code == 200


async def test_a_body_in_chunks_is_read(make_site: MakeSite) -> None:
    site = await make_site()

    async def pieces() -> Any:
        for piece in (b'{"model":"tiny",', b'"prompt":"x"', b"}"):
            yield piece
            await asyncio.sleep(0.01)

    assert (await site.client.post("/v1/completions", content=pieces())).status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for_long(make_site: MakeSite) -> None:
    site = await make_site(body_s=0.2)
    answer = await raw(site, b"content-length: 100\r\n\r\n{")
    assert b" 408 " in answer.split(b"\r\n")[0]


async def test_a_body_in_broken_chunks_is_refused(make_site: MakeSite) -> None:
    site = await make_site()
    answer = await raw(site, b"transfer-encoding: chunked\r\n\r\nzz\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert not site.prefill[0].served


async def test_both_lengths_at_once_are_refused(make_site: MakeSite) -> None:
    """The classic of request smuggling."""
    site = await make_site()
    answer = await raw(site, b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]


async def test_a_header_without_end_is_refused(make_site: MakeSite) -> None:
    site = await make_site()
    answer = await raw(site, b"x-long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0] or b" 431 " in answer.split(b"\r\n")[0]


async def test_a_full_gateway_says_so(make_site: MakeSite) -> None:
    site = await make_site(in_flight=2)
    site.decode[0].act.first_s = 0.4
    replies = await asyncio.gather(*(site.complete() for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 503, 503]
    full = next(reply for reply in replies if reply.status_code == 503)
    assert is_error(full, 503, "overloaded")
    assert full.headers["retry-after"] == "1"


async def test_unknown_paths_and_methods_are_json_errors(make_site: MakeSite) -> None:
    site = await make_site()
    assert is_error(await site.client.get("/v1/completions"), 405, "method_not_allowed")
    assert is_error(await site.client.get("/v1/embeddings"), 404, "unknown_path")
    assert is_error(await site.client.post("/v1/models"), 404, "unknown_path")
    assert is_error(await site.client.get("/"), 404, "unknown_path")


async def test_health_needs_no_key(make_site: MakeSite) -> None:
    site = await make_site()
    reply = await site.client.get("/health", headers={"Authorization": ""})
    assert (reply.status_code, reply.json()["status"]) == (200, "ok")
    site.gateway.draining = True
    assert (await site.client.get("/health")).status_code == 503
    assert is_error(await site.complete(), 503, "shutting_down")


async def test_the_metrics_are_of_what_went_through(make_site: MakeSite) -> None:
    site = await make_site()
    await site.complete(stream=True)
    await site.complete(model="no-such")
    await eventually(lambda: len(site.trips()) == 2)
    site.gateway.metrics.observe(site.trips())
    text = (await site.client.get("/metrics", headers={"Authorization": ""})).text
    row = 'requests_total{deployment="tiny",kind="completion",outcome="ok",path="two_step"} 1.0'
    assert f"forebay_gateway_{row}" in text
    assert 'forebay_gateway_generation_tokens_total{deployment="tiny"} 4.0' in text
    assert 'forebay_gateway_time_to_first_token_seconds_count{deployment="tiny"} 1.0' in text
    assert "no-such" not in text, "clients make no labels"


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
async def test_who_reads_the_metrics_through_a_proxy_on_this_host_needs_a_key(header: str, make_site: MakeSite) -> None:
    site = await make_site()
    through = {header: "203.0.113.7"}
    assert is_error(await site.client.get("/metrics", headers={"Authorization": "", **through}), 401, "invalid_api_key")
    assert (await site.client.get("/metrics", headers=through)).status_code == 200


async def raw(site: Site, rest: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" % KEY.encode() + rest)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    finally:
        writer.close()
