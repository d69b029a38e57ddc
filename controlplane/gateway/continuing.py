"""Whether a request's stream can go on on another engine, and what that engine is asked. Pure.

Only what is known to be faithful goes on: a field that is not known here keeps a request from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Raw

from controlplane.gateway.openai import Ask, Kind, options
from controlplane.gateway.transcript import KEEP_MARKS, Transcript

LONGEST_PROMPT = 256 * 1024  # bytes; the engine is to send back its tokens, and a token takes up to eight
GREEDY = 1e-5  # vLLM's own bound, below which it samples nothing
DEFAULT_MAX_TOKENS = 16  # of completions; a chat may fill the model's context
# How tokens are drawn, from what came before them: the same wherever the prompt ends and the answer begins.
SAMPLING = frozenset({
    "model", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens",
    "allowed_token_ids", "logit_bias", "seed", "cache_salt", "priority", "user", "session_id", "stream_interval",
})  # fmt: skip
# What shaped the prompt is in its tokens; the others are set anew or concern nobody.
IN_THE_TOKENS = frozenset({
    "prompt", "messages", "suffix", "add_special_tokens", "truncate_prompt_tokens", "truncation_side",
    "chat_template", "chat_template_kwargs", "documents", "add_generation_prompt", "continue_final_message",
    "reasoning_effort", "stream", "stream_options", "max_tokens", "max_completion_tokens", "min_tokens",
    "return_token_ids", "tool_choice", "parallel_tool_calls", "metadata", "store", "service_tier",
    "safety_identifier", "prompt_cache_key",
})  # fmt: skip
NOTHING = frozenset({b"null", b"false", b"[]", b"{}", b'""'})
SAME_AS_NONE = {
    "n": b"1", "best_of": b"1", "top_logprobs": b"0", "presence_penalty": b"0", "frequency_penalty": b"0",
    "include_reasoning": b"true", "length_penalty": b"1", "response_format": b'{"type":"text"}',
    "modalities": b'["text"]',
}  # fmt: skip
_messages = msgspec.json.Decoder(list[dict[str, Raw]])
_parts = msgspec.json.Decoder(list[dict[str, Any]])


def transcript_for(ask: Ask) -> Transcript | None:
    """What to note of this request's stream so that it can go on; None when it could not."""
    fields = ask.fields
    if not ask.stream or len(ask.prompt) > LONGEST_PROMPT or not all(map(_is_faithful, fields, fields.values())):
        return None
    if ask.kind is Kind.COMPLETION and not ask.is_one_prompt():
        return None
    if "seed" in fields and bytes(fields["seed"]) != b"null" and not is_greedy(ask):
        return None  # the engine would draw the same random numbers once more
    if "stream_options" in fields and options(fields).get("continuous_usage_stats"):
        return None
    if "stop" not in fields:
        return Transcript()
    longest = _longest_stop(fields["stop"])
    if longest > KEEP_MARKS or (longest and _number(fields, "min_tokens")):
        return None
    shown = bytes(fields.get("include_stop_str_in_output", b"")) == b"true"
    return Transcript(longest_stop=longest, stop_shown=shown)


def is_greedy(ask: Ask) -> bool:
    """Whether the same prompt gives the same text once more."""
    temperature = _number(ask.fields, "temperature")
    return temperature is not None and temperature < GREEDY


def shows_ids(ask: Ask) -> bool:
    return bytes(ask.fields.get("return_token_ids", b"")) == b"true"


def next_ask(ask: Ask, transcript: Transcript) -> Ask | None:
    """What to ask another engine after what the client has got; None when that is not to be had faithfully."""
    if transcript.lost:
        return None
    if ask.kind is Kind.CHAT:
        if transcript.silent and not shows_ids(ask):
            transcript.forget()  # nobody can tell from no text whether the engine would have taken it apart
            return ask
        if not _is_text_only(ask):
            return None
    prompt = transcript.cut(repeatable=is_greedy(ask), whole=shows_ids(ask))
    return None if prompt is None else _after(ask, prompt, transcript.count)


def _after(ask: Ask, prompt: bytes, count: int) -> Ask | None:
    limit = _limit(ask)
    if limit is not None and limit <= count:
        return None
    fields = {name: value for name, value in ask.fields.items() if name in SAMPLING}
    fields["prompt"] = Raw(prompt)
    if limit is not None:
        fields["max_tokens"] = Raw(b"%d" % (limit - count))
    if (least := int(_number(ask.fields, "min_tokens") or 0)) > count:
        fields["min_tokens"] = Raw(b"%d" % (least - count))
    fields["stream"] = Raw(b"true")
    return replace(ask, kind=Kind.COMPLETION, fields=fields, wants_usage=False, to_context=limit is None)


def _limit(ask: Ask) -> int | None:
    """The most tokens of the whole answer; None: what the model's context holds."""
    names = ("max_completion_tokens", "max_tokens") if ask.kind is Kind.CHAT else ("max_tokens",)
    for name in names:
        limit = _number(ask.fields, name)
        if limit is not None:
            return int(limit)
    return None if ask.kind is Kind.CHAT else DEFAULT_MAX_TOKENS


def _is_faithful(name: str, value: Raw) -> bool:
    if name in SAMPLING or name in IN_THE_TOKENS:
        return True
    said = bytes(value).replace(b" ", b"")
    if name in SAME_AS_NONE:
        return said == b"null" or said.removesuffix(b".0") == SAME_AS_NONE[name]
    return said in NOTHING


def _longest_stop(value: Raw) -> int:
    try:
        stop = msgspec.json.decode(value, type=str | list[str] | None)
    except msgspec.DecodeError:
        return KEEP_MARKS + 1  # the engine will refuse it
    return max((len(one) for one in ([stop] if isinstance(stop, str) else stop or [])), default=0)


def _number(fields: dict[str, Raw], name: str) -> float | None:
    if name not in fields:
        return None
    try:
        return msgspec.json.decode(fields[name], type=float | None)
    except msgspec.DecodeError:
        return None


def _is_text_only(ask: Ask) -> bool:
    """Whether the tokens of the prompt are all there is to it: those of a picture only hold its place."""
    try:
        for message in _messages.decode(ask.fields["messages"]):
            content = message.get("content", Raw(b"null"))
            if bytes(content)[:1] == b"[" and any(part.get("type") != "text" for part in _parts.decode(content)):
                return False
            if any(bytes(message.get(name, b"null")) != b"null" for name in ("audio", "image")):
                return False
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
