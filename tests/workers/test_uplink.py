from __future__ import annotations

import socket
import time

import httpx
import msgspec
import pytest

from workers.contract import LogChunk, NodeReport, NodeSpec, ReportReply
from workers.joining import JoinRequest
from workers.uplink import MAX_REPORT_BYTES, Answer, JoinFailed, Uplink, join

REPORT = NodeReport(node=7, instance="i", seq=1, at=0.0, generation=3)
REQUEST = JoinRequest(token="t", name="n1", address="127.0.0.1", instance="i", agent_version="0", at=0.0)


def uplink(answer: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Uplink:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Uplink("http://c/", "secret", httpx.Client(transport=httpx.MockTransport(handle)))


def problem(status: int, kind: str = "about:blank", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"type": kind, "title": "No", "detail": "because"}, headers=headers)


def test_a_report_is_sent_with_the_nodes_token_and_its_reply_read():
    seen: list[httpx.Request] = []
    reply = ReportReply(at=1.0, spec=NodeSpec(node=7, generation=4))
    outcome = uplink(httpx.Response(200, content=msgspec.json.encode(reply)), seen).report(REPORT)
    assert outcome.answer == Answer.OK and outcome.reply == reply
    assert str(seen[0].url) == "http://c/agent/v1/report" and seen[0].headers["Authorization"] == "Bearer secret"
    assert msgspec.json.decode(seen[0].content, type=NodeReport) == REPORT


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (problem(401), Answer.UNKNOWN_TOKEN),
        (problem(410, "https://c/problems/node-revoked"), Answer.REVOKED),
        (problem(410), Answer.REFUSED),
        (problem(409, "identity-conflict"), Answer.CONFLICT),
        (problem(409), Answer.REFUSED),
        (problem(400), Answer.REFUSED),
        (problem(404), Answer.REFUSED),
        (problem(413), Answer.REFUSED),
        (problem(429), Answer.SLOW_DOWN),
        (problem(503), Answer.SLOW_DOWN),
        (problem(500), Answer.UNREACHABLE),
        (httpx.Response(302, headers={"Location": "http://evil/"}), Answer.UNREACHABLE),
        (httpx.Response(200, text="<html>"), Answer.UNREACHABLE),
        (httpx.Response(200, json={"at": 1, "spec": {"node": -1, "generation": 1}}), Answer.UNREACHABLE),
        (httpx.ConnectError("refused"), Answer.UNREACHABLE),
        (httpx.ReadTimeout("slow"), Answer.UNREACHABLE),
    ],
)
def test_every_answer_has_its_meaning(response, answer):
    outcome = uplink(response).report(REPORT)
    assert outcome.answer == answer and outcome.detail and outcome.reply is None


@pytest.mark.parametrize(("header", "wait"), [("7", 7.0), ("999999", 300.0), ("soon", None), ("-1", None)])
def test_how_long_to_wait_is_taken_within_bounds(header, wait):
    assert uplink(problem(503, **{"Retry-After": header})).report(REPORT).wait_s == wait


def test_a_report_that_is_too_long_goes_without_its_logs():
    seen: list[httpx.Request] = []
    logs = tuple(LogChunk(partition=n, offset=0, text="x" * 65000) for n in range(40))
    uplink(httpx.Response(200, json={"at": 1}), seen).report(msgspec.structs.replace(REPORT, logs=logs))
    assert len(seen[0].content) < MAX_REPORT_BYTES


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (problem(403), "No: because"),
        (httpx.Response(502, text="bad gateway"), "Bad Gateway"),
        (httpx.Response(200, text="hello"), "something else than a control plane"),
        (httpx.ConnectError("refused"), "cannot be reached"),
    ],
)
def test_a_join_that_fails_says_why(response, text):
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    with pytest.raises(JoinFailed, match=text):
        join(httpx.Client(transport=httpx.MockTransport(handle)), "http://c", REQUEST)


def test_a_server_that_never_answers_is_given_up_while_the_node_still_counts_as_heard():
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = Uplink(f"http://127.0.0.1:{server.getsockname()[1]}", "secret")
        began = time.monotonic()
        assert silent.report(REPORT).answer == Answer.UNREACHABLE
        assert time.monotonic() - began < 10.0
        silent.close()
