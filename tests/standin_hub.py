"""A stand-in for a model hub: it speaks the few endpoints of huggingface.co that the real client uses to fetch a model,
on loopback, and breaks as it is told. Large files lie behind a redirect to another host, as in the real one."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.workers.models import safetensors

_INFO = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/revision/([^/?]+)")
_TREE = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/tree/([^/?]+)")
_FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_LARGE = re.compile(r"/large/([\w.-]+/[\w.-]+)/(.+)")
BLOCK = 2**17


@dataclass
class StandinHub:
    """Its repositories, by name the files by name. `served`: bytes of large files that went out, by name."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path
    served: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)  # sent with one byte changed
    cut: dict[str, int] = field(default_factory=dict)  # so many bytes of the file go out, then the connection ends
    bytes_s: float = float("inf")  # of large files
    tokens: dict[str, set[str]] = field(default_factory=dict)  # that came, by host

    def add(self, repository: str, *, shards: int = 2, size: int = 200_000) -> int:
        """A model; the bytes of all that is fetched of it."""
        names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
        weights = {name: safetensors(size, repository + name) for name in names}
        index = {"metadata": {"total_size": shards * size}, "weight_map": {f"w{n}": x for n, x in enumerate(names)}}
        files = {
            "config.json": json.dumps({"model_type": "llama", "of": repository}).encode(),
            "tokenizer.json": b'{"model": {}}',
            "model.safetensors.index.json": json.dumps(index).encode(),
            **weights,
        }
        self.repositories[repository] = files | {"pytorch_model.bin": b"another form", "picture.png": b"\x89PNG"}
        return sum(map(len, files.values()))

    def commit(self, repository: str) -> str:
        """Changes with the files."""
        made = hashlib.sha1()
        for name, data in sorted(self.repositories[repository].items()):
            made.update(name.encode() + hashlib.sha256(data).digest())
        return made.hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


@contextmanager
def standin_hub() -> Iterator[StandinHub]:
    hub = StandinHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandinHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # whoever asked was killed
            self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        host = self.headers.get("Host", "").partition(":")[0]
        self.hub.tokens.setdefault(host, set()).add(self.headers.get("Authorization", ""))
        if match := _INFO.fullmatch(path):
            self._info(match[1])
        elif match := _TREE.fullmatch(path):
            self._tree(match[1])
        elif match := _FILE.fullmatch(path):
            self._file(match[1], match[3])
        elif match := _LARGE.fullmatch(path):
            self._send_file(match[2], self.hub.repositories[match[1]][match[2]])
        else:
            self._missing()

    def _info(self, repository: str) -> None:
        if repository not in self.hub.repositories:
            self._missing()
            return
        self._json({"id": repository, "sha": self.hub.commit(repository), "siblings": [], "private": False, "tags": []})

    def _tree(self, repository: str) -> None:
        listed = []
        for name, data in self.hub.repositories[repository].items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": git_sum(data)}
            if is_large(name):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            listed.append(entry)
        self._json(listed)

    def _file(self, repository: str, name: str) -> None:
        data = self.hub.repositories[repository].get(name)
        if data is None:
            self._missing()
            return
        headers = {"X-Repo-Commit": self.hub.commit(repository)}
        if not is_large(name):
            self._send_file(name, data, headers | {"ETag": f'"{git_sum(data)}"'})
            return
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data)),
            "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/large/{repository}/{name}",
        }  # fmt: skip
        self._head(302, 0, headers)

    def _send_file(self, name: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        start, whole = 0, len(data)
        if name in self.hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        more = {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"} if start else {}
        self._head(206 if start else 200, whole - start, (headers or {}) | more)
        if self.command == "HEAD":
            return
        end = self.hub.cut.get(name, whole)
        for at in range(start, min(end, whole), BLOCK):
            block = data[at : min(at + BLOCK, end)]
            self.wfile.write(block)
            self.hub.served[name] = self.hub.served.get(name, 0) + len(block)
            time.sleep(len(block) / self.hub.bytes_s)
        if end < whole:
            self.close_connection = True

    def _json(self, said: object) -> None:
        body = json.dumps(said).encode()
        self._head(200, len(body), {"Content-Type": "application/json"})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        self._head(404, 0, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
