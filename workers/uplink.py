"""HTTP to the control plane: join once, then report. Every answer it may give is one of the outcomes here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

import httpx
import msgspec

from workers.contract import NodeReport, ReportReply
from workers.joining import JoinReply, JoinRequest

log = logging.getLogger(__name__)
TIMEOUT = httpx.Timeout(10.0, connect=3.0)
# A connection that died unnoticed must be given up, and the report sent over a new one, before the control plane takes
# the node for silent, after 10 s.
REPORT_TIMEOUT = httpx.Timeout(4.0, connect=3.0)
MAX_REPLY_BYTES = 8 * 2**20
MAX_REPORT_BYTES = 2 * 2**20
MAX_WAIT_S = 300.0


class JoinFailed(Exception):
    """The control plane did not take this node; the message is its reason."""


class Answer(StrEnum):
    """What became of a report, and what the agent does then."""

    OK = "ok"
    UNREACHABLE = "unreachable"  # network or server trouble: keep everything, keep trying
    SLOW_DOWN = "slow down"  # 429, 503: wait as told
    UNKNOWN_TOKEN = "unknown token"  # noqa: S105 - 401: keep the engines, try slowly
    REVOKED = "revoked"  # 410: drain and stop the engines, then leave
    CONFLICT = "conflict"  # 409: another agent reports as this node: touch nothing
    REFUSED = "refused"  # any other 4xx: a fault in what was sent


@dataclass(frozen=True, slots=True)
class Outcome:
    answer: Answer
    reply: ReportReply | None = None
    wait_s: float | None = None
    detail: str = ""


class Problem(msgspec.Struct, frozen=True):
    type: str = ""
    title: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.title, self.detail])) or self.type


def join(client: httpx.Client, url: str, request: JoinRequest) -> JoinReply:
    """Raises JoinFailed."""
    try:
        reply = client.post(
            f"{url.rstrip('/')}/agent/v1/join",
            content=msgspec.json.encode(request),
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT,
        )
    except httpx.HTTPError as error:
        raise JoinFailed(f"{url} cannot be reached: {error}") from error
    if reply.status_code != httpx.codes.OK:
        raise JoinFailed(str(_problem(reply)) or f"{url} answered {reply.status_code}")
    try:
        return msgspec.json.decode(reply.content, type=JoinReply)
    except msgspec.MsgspecError as error:
        raise JoinFailed(f"{url} answered something else than a control plane does: {error}") from error


class Uplink:
    def __init__(self, url: str, token: str, client: httpx.Client | None = None) -> None:
        self._url = f"{url.rstrip('/')}/agent/v1/report"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._client = client or httpx.Client(timeout=REPORT_TIMEOUT, follow_redirects=False)

    def report(self, report: NodeReport) -> Outcome:
        """One POST, no retry: the next report says it all again."""
        body = msgspec.json.encode(report)
        if len(body) > MAX_REPORT_BYTES:
            body = msgspec.json.encode(msgspec.structs.replace(report, logs=()))
        try:
            reply = self._client.post(self._url, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            return Outcome(Answer.UNREACHABLE, detail=f"{type(error).__name__}: {error}")
        return outcome(reply)

    def close(self) -> None:
        self._client.close()


def outcome(reply: httpx.Response) -> Outcome:
    """What an HTTP answer to a report means."""
    status, problem = reply.status_code, _problem(reply)
    detail = f"{status} {problem}".strip()
    if status == httpx.codes.OK:
        return _taken(reply)
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        return Outcome(Answer.SLOW_DOWN, wait_s=_retry_after(reply), detail=detail)
    if status == httpx.codes.UNAUTHORIZED:
        return Outcome(Answer.UNKNOWN_TOKEN, detail=detail)
    # Only the control plane itself says these two, by name; a proxy's own 410 or 409 must not stop engines.
    if status == httpx.codes.GONE and problem.type.endswith("node-revoked"):
        return Outcome(Answer.REVOKED, detail=detail)
    if status == httpx.codes.CONFLICT and problem.type.endswith("identity-conflict"):
        return Outcome(Answer.CONFLICT, detail=detail)
    if 400 <= status < 500:
        return Outcome(Answer.REFUSED, detail=detail)
    return Outcome(Answer.UNREACHABLE, detail=detail)


def _taken(reply: httpx.Response) -> Outcome:
    if len(reply.content) > MAX_REPLY_BYTES:
        return Outcome(Answer.UNREACHABLE, detail=f"an answer of {len(reply.content)} bytes is too long")
    try:
        return Outcome(Answer.OK, msgspec.json.decode(reply.content, type=ReportReply))
    except msgspec.MsgspecError as error:
        return Outcome(Answer.UNREACHABLE, detail=f"the answer cannot be read: {error}")


def _problem(reply: httpx.Response) -> Problem:
    if reply.status_code == httpx.codes.OK:
        return Problem()
    try:
        return msgspec.json.decode(reply.content[:65536], type=Problem)
    except msgspec.MsgspecError:
        return Problem(title=reply.reason_phrase)


def _retry_after(reply: httpx.Response) -> float | None:
    text = reply.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_S) if text.isdecimal() else None
