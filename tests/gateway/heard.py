"""Streams whose engine is made to die, as their client puts them together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.gateway.conftest import MakeSite, Site, events
from tests.standin_words import Behaviour
from tests.toy_model import Speaking

GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 24}


KINDS = ["complete", "chat"]


@dataclass
class Heard:
    """A stream as its client puts it together."""

    text: str
    finish: list[Any]
    usage: list[dict[str, Any]]
    ids: set[Any]
    roles: int
    ends: int
    errors: list[dict[str, Any]]
    chunks: list[dict[str, Any]]

    @classmethod
    def of(cls, body: str) -> Heard:
        said = [event for event in events(body) if not event.startswith(":")]
        chunks = [json.loads(event) for event in said if event != "[DONE]"]
        good = [chunk for chunk in chunks if "error" not in chunk]
        choices = [choice for chunk in good for choice in chunk["choices"]]
        return cls(
            text="".join(choice.get("text", choice.get("delta", {}).get("content", "")) for choice in choices),
            finish=[choice["finish_reason"] for choice in choices if choice["finish_reason"]],
            usage=[chunk["usage"] for chunk in good if chunk.get("usage")],
            ids={(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in good},
            roles=sum("role" in choice.get("delta", {}) for choice in choices),
            ends=said.count("[DONE]"),
            errors=[chunk["error"] for chunk in chunks if "error" in chunk],
            chunks=good,
        )


async def make_speaking(make_site: MakeSite, *, prefill: int = 0, decode: int = 2, **limits: Any) -> Site:
    """All engines hold one model and act alike; `deaths` counts for all."""
    site = await make_site(prefill=prefill, decode=decode, **limits)
    act = Behaviour(model=Speaking())
    for engine in [*site.prefill, *site.decode]:
        engine.act = act
    return site


async def heard(site: Site, kind: str, **body: Any) -> Heard:
    reply = await getattr(site, kind)(**{**GREEDY, "stream": True, **body})
    assert reply.status_code == 200, reply.text
    return Heard.of(reply.text)


def break_after(site: Site, tokens: int, *, how: str = "cut", deaths: int = 1) -> None:
    act = site.decode[0].act
    act.die_after, act.die_how, act.deaths = tokens, how, deaths


def assert_one_answer(got: Heard, whole: Heard) -> None:
    assert got.text == whole.text
    assert not got.errors
    assert got.finish == whole.finish
    assert got.usage == whole.usage
    assert len(got.ids) == 1
    assert got.roles == whole.roles
    assert got.ends == 1
