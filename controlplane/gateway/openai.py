"""The OpenAI wire format: what a client may ask, what each engine is sent, and errors as clients expect them.

A body is taken apart one level deep only; what lies deeper stays the bytes the client sent.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Raw

PREFILL_PARAMS = Raw(b'{"do_remote_decode":true,"do_remote_prefill":false}')
# What a one-token, unstreamed request cannot carry, or what would only cost the prefill engine time.
NOT_FOR_PREFILL = (
    "stream_options", "n", "best_of", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "min_tokens", "stop",
    "stop_token_ids", "response_format", "structured_outputs", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar",
)  # fmt: skip
# Engines act on these for whoever sends them: blocks of other requests, and ids that must not collide.
NOT_FROM_CLIENTS = ("kv_transfer_params", "ec_transfer_params")
PREFIX_BYTES = 1024
_ONE, _TRUE, _FALSE, _NONE_CHOICE = Raw(b"1"), Raw(b"true"), Raw(b"false"), Raw(b'"none"')

_fields = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class Kind(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"


PATHS = {"/v1/chat/completions": Kind.CHAT, "/v1/completions": Kind.COMPLETION}


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form."""

    def __init__(
        self, status: int, message: str, *, code: str, kind: str = "", param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")

    def body(self) -> bytes:
        return error_body(str(self), kind=self.kind, code=self.code, param=self.param)


def error_body(message: str, *, kind: str, code: str | int | None, param: str | None = None) -> bytes:
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class Usage(msgspec.Struct):
    """What an engine says a request cost."""

    class Details(msgspec.Struct):
        cached_tokens: int | None = None

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: Details | None = None

    @property
    def cached_tokens(self) -> int | None:
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


@dataclass(slots=True)
class Ask:
    """One request for text."""

    kind: Kind
    model: str
    stream: bool
    wants_usage: bool
    fields: dict[str, Raw]
    ids: bool = False  # the engine is to tell the tokens of what it says
    to_context: bool = False  # as many tokens as the model's context holds, which must be asked for

    @property
    def prompt(self) -> memoryview:
        """The prompt as it lies in the body, undecoded."""
        return memoryview(self.fields["messages" if self.kind is Kind.CHAT else "prompt"])

    def prefix(self) -> int:
        """The same for prompts that begin alike."""
        return zlib.crc32(self.prompt[:PREFIX_BYTES])

    def estimated_tokens(self) -> int:
        """About how long the prompt is: exact for token ids, a quarter of the bytes for text."""
        prompt = self.prompt
        if self.kind is Kind.COMPLETION and bytes(prompt[:1]) == b"[":
            return bytes(prompt).count(b",") + 1
        return len(prompt) // 4

    def is_one_prompt(self) -> bool:
        """Text or one list of token ids, not a list of prompts."""
        start = bytes(self.prompt[:64]).replace(b" ", b"").replace(b"\n", b"")
        return start[:1] == b'"' or (start[:1] == b"[" and start[1:2].isdigit())

    def fits_transfer(self) -> bool:
        """Whether one prefill's blocks are all it takes. Blocks serve one sequence once: several choices or
        prompts would pull them several times. Logprobs of the prompt need the prompt computed where they are
        asked for."""
        fields = self.fields
        if self.kind is Kind.COMPLETION and not self.is_one_prompt():
            return False
        if any(name in fields and bytes(fields[name]) not in (b"1", b"null") for name in ("n", "best_of")):
            return False
        alone = ("prompt_logprobs", "echo", "use_beam_search", "prompt_embeds")
        return not any(name in fields and bytes(fields[name]) not in (b"null", b"false") for name in alone)

    def for_prefill(self) -> bytes:
        body = {name: value for name, value in self.fields.items() if name not in NOT_FOR_PREFILL}
        body["stream"] = _FALSE
        body["max_tokens"] = _ONE
        if "max_completion_tokens" in body:
            body["max_completion_tokens"] = _ONE
        choice = body.get("tool_choice")
        if choice is not None and bytes(choice) != b'"auto"':
            body["tool_choice"] = _NONE_CHOICE  # one token is no call; the tools stay, for they shape the prompt
        body["kv_transfer_params"] = PREFILL_PARAMS
        return _encode(body)

    def for_answer(self, params: Raw | None) -> bytes:
        """The client's body, but for what the gateway needs of its own: the blocks' whereabouts and the usage."""
        if params is None and not self.ids and (not self.stream or self.wants_usage):
            return _encode(self.fields)
        body = dict(self.fields)
        if params is not None:
            body["kv_transfer_params"] = params
        if self.ids:
            body["return_token_ids"] = _TRUE
        if self.stream and not self.wants_usage:
            body["stream_options"] = Raw(_encode({**options(self.fields), "include_usage": True}))
        return _encode(body)


def parse(raw: bytes, kind: Kind) -> Ask:
    """The request in `raw`, or the ApiError that says what is wrong with it."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not a JSON object: {error}", code="invalid_json") from error
    model = _field(fields, "model", str)
    if not model:
        raise ApiError(400, "You must provide a model.", code="missing_model", param="model")
    if len(model) > 256:
        raise ApiError(400, "The model's name is too long.", code="invalid_value", param="model")
    needed = "messages" if kind is Kind.CHAT else "prompt"
    if needed not in fields and not (kind is Kind.COMPLETION and "prompt_embeds" in fields):
        raise ApiError(400, f"You must provide {needed}.", code="missing_field", param=needed)
    fields.setdefault(needed, Raw(b"null"))
    _refuse_transfer_params(fields)
    fields.pop("request_id", None)
    stream = bool(_field(fields, "stream", bool | None))
    wants_usage = bool(stream and options(fields).get("include_usage"))
    return Ask(kind, model, stream, wants_usage, fields)


def _refuse_transfer_params(fields: dict[str, Raw]) -> None:
    smuggled = _field(fields, "vllm_xargs", dict[str, Raw] | None) if "vllm_xargs" in fields else None
    for name in NOT_FROM_CLIENTS:
        if name in fields or (smuggled and name in smuggled):
            raise ApiError(400, f"{name} is not for clients to set.", code="invalid_value", param=name)


def options(fields: dict[str, Raw]) -> dict[str, Any]:
    return _field(fields, "stream_options", dict[str, Any] | None) or {} if "stream_options" in fields else {}


def _field(fields: dict[str, Raw], name: str, kind: Any) -> Any:
    if name not in fields:
        return None
    try:
        return msgspec.json.decode(fields[name], type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"{name}: {error}", code="invalid_value", param=name) from error
