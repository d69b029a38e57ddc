"""Which engine arguments run code or open files of nodes, however they are spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.engine_args import OWNED, validate
from controlplane.domain.trusted_args import TRUSTED, added, trusted_flag


@pytest.mark.parametrize("flag", sorted(TRUSTED))
def test_each_is_known_in_every_spelling_and_is_not_the_agents(flag: str) -> None:
    underscored = "--" + flag[2:].replace("-", "_")
    for args in ((flag,), (flag, "x"), (f"{flag}=x",), (underscored, "x"), (f"{underscored}=x",), (f"{flag}.a.b", "x"),
                 (f"{flag}.a+", "x"), (f"--no-{flag[2:]}",), ("--seed", "1", flag, "x")):  # fmt: skip
        assert added([], args) == [flag]
    assert flag not in OWNED
    assert validate([flag, "x"]) == []


@given(st.sampled_from(sorted(TRUSTED)), st.integers(3, 40))
def test_no_abbreviation_slips_past(flag: str, length: int) -> None:
    """argparse completes an unambiguous beginning."""
    assert trusted_flag(flag[:length]) in TRUSTED


@pytest.mark.parametrize(
    "arg",
    ["--max-model-len", "--tokenizer-mode", "--chat-template-content-format=string", "--load-format", "--spec-tokens",
     "--media-io-kwargs", "--override-generation-config", "--enable-lora", "--tool-call-parser", "--seed", "--", "-1",
     "trust-remote-code", "--optimization-level", "--model-impl", "--config-format", "--dtype", "--attention-backend"],
)  # fmt: skip
def test_all_others_are_the_operators(arg: str) -> None:
    assert trusted_flag(arg) == ""


def test_what_is_kept_or_left_out_is_not_added() -> None:
    before = ["--seed", "1", "--chat-template", "/a.jinja", "--lora-modules", "one=/1", "two=/2", "--trust-remote-code"]

    assert added(before, before) == []
    assert added(before, ["--trust-remote-code", "--chat-template", "/a.jinja", "--seed", "2"]) == []
    assert added(before, []) == []


@pytest.mark.parametrize(
    ("after", "flag"),
    [
        (["--chat-template", "/b.jinja"], "--chat-template"),
        (["--chat-template=/b.jinja"], "--chat-template"),
        (["--chat-templ", "/b.jinja"], "--chat-template"),
        (["--lora-modules", "one=/1", "two=/3"], "--lora-modules"),
        (["--lora-modules", "one=/1", "two=/2", "three=/3"], "--lora-modules"),
        (["--speculative-config.model", "/evil"], "--speculative-config"),
        (["--trust_remote_code"], "--trust-remote-code"),
    ],
)
def test_another_value_is_added(after: list[str], flag: str) -> None:
    assert added(["--chat-template", "/a.jinja", "--lora-modules", "one=/1", "two=/2"], after) == [flag]
