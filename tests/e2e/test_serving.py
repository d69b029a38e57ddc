"""A request through two real engines: right text, KV moved, exactly as OpenAI's own client expects."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.e2e.stack import LONG, Stack

TOKENS_BY_SOURCE = "vllm:prompt_tokens_by_source_total"


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key=stack.key, max_retries=0, timeout=60)


def test_the_text_equals_that_of_a_single_engine(stack: Stack) -> None:
    for number in range(3):
        prompt = f"{number}: {LONG}"
        two_step = stack.complete(prompt, 24)
        assert two_step.status_code == 200, two_step.text
        assert two_step.headers["x-forebay-path"] == "two_step"
        alone = single_engine_text(stack, prompt, 24)
        assert two_step.json()["choices"][0]["text"] == alone
        assert alone.strip()


def test_the_kv_of_the_prompt_came_by_transfer(stack: Stack) -> None:
    decode = stack.partition("decode")
    before = {source: tokens(stack, decode, source) for source in ("external_kv_transfer", "local_compute")}

    reply = stack.complete(f"moved: {LONG}", 4)

    prompt_tokens = reply.json()["usage"]["prompt_tokens"]
    moved = tokens(stack, decode, "external_kv_transfer") - before["external_kv_transfer"]
    computed = tokens(stack, decode, "local_compute") - before["local_compute"]
    # The engine computes the last token of a prompt itself: it needs its logits.
    assert prompt_tokens - 1 <= moved <= prompt_tokens
    assert computed <= 1


def test_another_prompt_gives_another_text(stack: Stack) -> None:
    """The negative control: equal texts above would prove nothing if the model always said the same."""
    texts = {stack.complete(f"{word} {LONG}", 24).json()["choices"][0]["text"] for word in ("one", "two", "three")}
    assert len(texts) == 3


def test_the_official_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": LONG}],
    "max_tokens": 12,
    "temperature": 0,
    "extra_body": {"ignore_eos": True},  # a model with random weights may end at once
}


def test_the_official_client_chats(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**CHAT)
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12


def test_a_stream_carries_the_same_text_piece_by_piece(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT).choices[0].message.content
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole
    assert sum(1 for piece in pieces if piece) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_a_wrong_key_is_an_authentication_error(stack: Stack) -> None:
    stranger = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key="fb-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.status_code == 401
    assert refused.value.body


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="no-such-model", prompt="x", max_tokens=1)
    assert "no-such-model" in str(refused.value)


def test_the_engines_refuse_who_does_not_hold_their_own_key(stack: Stack) -> None:
    for partition in stack.partitions():
        url = f"{partition['endpoint']}/v1/models"
        assert httpx.get(url, timeout=30).status_code == 401
        assert httpx.get(url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=30).status_code == 401


def single_engine_text(stack: Stack, prompt: str, count: int) -> str:
    """What the prefill engine answers when it is asked directly and does everything itself."""
    partition = stack.partition("prefill")
    reply = httpx.post(
        f"{partition['endpoint']}/v1/completions",
        headers={"Authorization": f"Bearer {stack.engine_key(partition['id'])}"},
        json={"model": "tiny", "prompt": prompt, "max_tokens": count, "temperature": 0},
        timeout=60,
    )
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["text"])


def tokens(stack: Stack, partition: dict[str, object], source: str) -> float:
    return stack.metric(partition, TOKENS_BY_SOURCE, source=source)
