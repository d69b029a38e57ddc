"""What alerts are sent to, for real: a small web server and a small mail server on this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebSink:
    """Keeps what it took. `answers`: statuses for the next requests; then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)  # of those that were taken
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    asked: int = 0

    @property
    def transitions(self) -> list[tuple[str, str, str]]:
        """(transition, rule, subject) in the order in which they came."""
        return [
            (alert["transition"], alert["rule"], alert["subject"]["name"])
            for body in self.bodies
            for alert in body["alerts"]
        ]


@contextmanager
def web_sink() -> Iterator[WebSink]:
    sink = WebSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.asked += 1
            status = sink.answers.pop(0) if sink.answers else 200
            if status == 200:
                sink.raw.append(body)
                sink.bodies.append(json.loads(body))
                sink.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sink.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret-path"
        with _serving(server):
            yield sink


@dataclass
class MailSink:
    url: str = ""
    letters: list[EmailMessage] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [line for letter in self.letters for line in letter.get_content().splitlines() if line]


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    """As much of SMTP as a letter needs."""
    sink = MailSink()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            while line := self.rfile.readline().strip().upper():
                if line.startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    sink.letters.append(self._letter())
                self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")

        def _letter(self) -> EmailMessage:
            lines: list[bytes] = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line)
            return message_from_bytes(b"".join(lines), policy=default)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        sink.url = f"smtp+plain://127.0.0.1:{server.server_address[1]}"
        with _serving(server):
            yield sink


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join(5)
