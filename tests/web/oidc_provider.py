"""An OpenID Connect provider on loopback, with keys of its own and real signatures. What it tells can be spoilt."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT, SECRET = "forebay", "client-secret"


@dataclass
class OidcProvider:
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "u-1", "preferred_username": "ada"})
    spoil_claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    spoil_token: Callable[[str], str] = lambda token: token
    spoil_userinfo: Callable[[dict[str, Any]], dict[str, Any]] = lambda told: told
    spoil_discovery: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
    issued: dict[str, dict[str, str]] = field(default_factory=dict)  # code -> what came to authorize

    def __post_init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.signing_key: Any = self.key
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._get(self)

            def do_POST(self) -> None:
                provider._post(self)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        if address.path == "/.well-known/openid-configuration":
            _answer(handler, 200, self.spoil_discovery(self._discovery()))
        elif address.path == "/jwks":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            _answer(handler, 200, {"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]})
        elif address.path == "/authorize":
            self._authorize(handler, dict(parse_qsl(address.query)))
        elif address.path == "/userinfo":
            _answer(handler, 200, self.spoil_userinfo(dict(self.person)))
        else:
            _answer(handler, 404, {})

    def _discovery(self) -> dict[str, Any]:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
        found = {name: f"{self.url}/{path}" for name, path in {**paths, "jwks_uri": "jwks"}.items()}
        return {"issuer": self.url, "token_endpoint_auth_methods_supported": ["client_secret_basic"], **found}

    def _authorize(self, handler: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        """The person agrees at once."""
        code = secrets.token_hex(8)
        self.issued[code] = asked
        handler.send_response(302)
        handler.send_header(
            "Location", asked["redirect_uri"] + "?" + urlencode({"code": code, "state": asked["state"]})
        )
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        """A code for tokens, once, to the client that knows its secret and the verifier of the code's challenge."""
        form = dict(parse_qsl(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.issued.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or handler.headers["Authorization"] != f"Basic {basic}"
            or challenge.decode().rstrip("=") != asked.get("code_challenge")
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            _answer(handler, 400, {"error": "invalid_grant"})
            return
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked.get("nonce"),
            **self.person,
        }
        token = jwt.encode(self.spoil_claims(claims), self.signing_key, algorithm="RS256", headers={"kid": "k1"})
        _answer(
            handler,
            200,
            {"access_token": "at", "token_type": "Bearer", "expires_in": 300, "id_token": self.spoil_token(token)},
        )


def _answer(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)
