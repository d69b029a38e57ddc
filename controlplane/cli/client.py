"""The REST API over HTTP: JSON in and out; every error becomes a Failure that says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx

from controlplane.cli.failures import Exit, Failure, Problem, failure

Row = dict[str, Any]
TIMEOUT = httpx.Timeout(15.0, connect=5.0)
PATIENCE = httpx.Timeout(120.0, connect=5.0)  # for answers that take the server seconds to find
PAGE = 500
AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # pauses before a write whose answer was lost is sent again
LOG_IN = "Run: forebay login (or set FOREBAY_URL and FOREBAY_TOKEN)."
_BY_STATUS = {401: Exit.ACCESS, 403: Exit.ACCESS, 409: Exit.REFUSED, 429: Exit.UNREACHABLE}


class Client:
    """One server, one token. Redirects are not followed: the token would go with them. A write carries a key of its
    own, so that it is sent again after a broken connection without being done twice."""

    def __init__(
        self, url: str, token: str = "", *, transport: httpx.BaseTransport | None = None, pace: float = 1.0
    ) -> None:
        self.url, self._pace = url, pace
        headers = {"Accept": "application/json", "User-Agent": "forebay-cli"}
        if token:
            headers["Authorization"] = f"Token {token}"
        self._http = httpx.Client(base_url=f"{url}/api/v1/", headers=headers, timeout=TIMEOUT, transport=transport)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Row:
        return self._row(self._send("GET", path, params=params))

    def get_patiently(self, path: str, **params: Any) -> Row:
        return self._row(self._send("GET", path, params=params, timeout=PATIENCE))

    def health(self) -> Row:
        """Of the server; 503 is an answer here, not an error."""
        return self._row(self._send("GET", "health", lawful=(503,)))

    def post(self, path: str, body: Row, **params: Any) -> Row:
        return self._row(self._send("POST", path, json=body, params=params))

    def post_for_number(self, path: str, body: Row) -> int:
        """Of what was made, by the end of its address: for answers that tell of something else."""
        response = self._send("POST", path, json=body)
        number = urlsplit(response.headers.get("location", "")).path.rstrip("/").rpartition("/")[2]
        if not number.isdecimal():
            raise failure(Exit.UNREACHABLE, f"{self.url} did not say where the answer is.", "Look at the server's log.")
        return int(number)

    def put(self, path: str, body: Row) -> Row:
        return self._row(self._send("PUT", path, json=body))

    def patch(self, path: str, body: Row, **params: Any) -> Row:
        return self._row(self._send("PATCH", path, json=body, params=params))

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def new_token(self, username: str, password: str, wanted: Row) -> Row:
        return self._row(self._send("POST", "tokens", json=wanted, auth=httpx.BasicAuth(username, password)))

    def every(self, path: str, limit: int | None = None, **params: Any) -> list[Row]:
        """All rows of a list, or the first `limit`, page by page."""
        asked = {"page_size": min(limit or PAGE, PAGE), **params}
        rows: list[Row] = []
        while True:
            page = self.get(path, **asked)
            rows += page["results"]
            if not page["next"] or (limit is not None and len(rows) >= limit):
                return rows if limit is None else rows[:limit]
            # Of the server's link only the query counts: followed as it stands, it could lead the token elsewhere.
            asked = dict(parse_qsl(urlsplit(page["next"]).query))

    def _send(self, method: str, path: str, *, lawful: tuple[int, ...] = (), **more: Any) -> httpx.Response:
        pauses: Iterator[float] = iter(())
        was_sent = False
        if method != "GET" and "auth" not in more:
            more["headers"], pauses = {"Idempotency-Key": uuid4().hex}, iter(AGAIN_S)
        while True:
            try:
                response = self._http.request(method, path, **more)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                was_sent = was_sent or not isinstance(error, httpx.ConnectError)
                pause = next(pauses, None) if was_sent else None
                if pause is None:
                    raise self._lost(error, method if was_sent else "GET") from error
            else:
                pause = next(pauses, None) if _still_runs(response) else None
                if pause is None:
                    break
            time.sleep(pause * self._pace)
        if response.is_success or response.status_code in lawful:
            return response
        raise self._refusal(response)

    def _lost(self, error: Exception, method: str) -> Failure:
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(f"{self.url} cannot be reached: {error}.", method)
        return self._unreachable(f"{self.url} does not answer: {error or type(error).__name__}.", method)

    def _unreachable(self, message: str, method: str = "GET") -> Failure:
        fix = "Check that it runs, and FOREBAY_URL."
        if method != "GET":
            fix = "It may or may not have been done: look before you repeat it."
        return failure(Exit.UNREACHABLE, message, fix)

    def _row(self, response: httpx.Response) -> Row:
        found = _document(response)
        if found is None:
            raise failure(Exit.UNREACHABLE, f"{self.url} is no Forebay server.", "Check FOREBAY_URL.")
        return found

    def _refusal(self, response: httpx.Response) -> Failure:
        status, document = response.status_code, _document(response) or {}
        if response.is_redirect:
            place = response.headers.get("location", "elsewhere")
            message = f"{self.url} redirects to {place}; the token is not sent there."
            return failure(Exit.UNREACHABLE, message, "Sign in at the address that answers by itself.")
        if "problems" not in document:
            return failure(
                Exit.UNREACHABLE, f"{self.url} answered {status} and no reason.", "Look at the server's log."
            )
        problems = [_problem(entry, status) for entry in document["problems"]]
        code = _BY_STATUS.get(status, Exit.UNREACHABLE if status >= 500 else Exit.USAGE)
        if str(document.get("type", "")).endswith((":conflict", ":stale-plan")):
            code = Exit.CONFLICT
        if _still_runs(response):
            code = Exit.UNREACHABLE
        changes = document.get("changes", [])
        return Failure(code, problems, request_id=str(document.get("request_id", "")), changes=changes)


def retried(read: Callable[[], Row]) -> Row | Failure:
    """What `read` gives, or that the server could not be reached just now; other failures are raised."""
    try:
        return read()
    except Failure as error:
        if error.exit_code != Exit.UNREACHABLE:
            raise
        return error


def _problem(entry: Row, status: int) -> Problem:
    message = str(entry["message"])
    if entry.get("field"):
        message = f"{entry['field']}: {message}"
    fix = LOG_IN if status == httpx.codes.UNAUTHORIZED else str(entry.get("fix", ""))
    return Problem(message, fix, bool(entry.get("forceable")), str(entry.get("code", "")))


def _still_runs(response: httpx.Response) -> bool:
    """An earlier sending of the same write has not been answered yet."""
    if response.status_code != httpx.codes.CONFLICT:
        return False
    return str((_document(response) or {}).get("type", "")).endswith(":idempotency-key-running")


def _document(response: httpx.Response) -> Row | None:
    """The answer as a JSON object; None where it is none."""
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
