"""Which engine arguments a deployment may carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.engine_args import MAX_ARGS, OWNED, flag_name, int_value, validate, value_of, without


def codes(*args: str) -> list[str]:
    return [problem.code for problem in validate(args)]


@pytest.mark.parametrize(
    "args",
    [
        ("--max-model-len", "32k"),
        ("--max_model_len=2048", "--enforce-eager"),
        ("--model-impl", "transformers"),
        ("--config-format", "hf"),
        ("--hf-overrides", '{"a": 1}'),
        ("--hf-overrides.rope_scaling.factor", "2"),
        ("--speculative-config.method", "ngram", "--speculative-config.num_speculative_tokens", "3"),
        ("--lora-modules", "one=/models/one", "two=/models/two"),
        ("--no-enable-prefix-caching",),
        ("--seed", "-1"),
        ("--rope-theta", "-.5"),
        ("--gpu-memory-utilization=0.85",),
        ("--reasoning-parser", "qwen3"),
        ("--tool-call-parser", "hermes", "--enable-auto-tool-choice"),
    ],
)
def test_what_concerns_the_model_is_the_operators(args: tuple[str, ...]) -> None:
    assert validate(args) == []


@pytest.mark.parametrize("flag", sorted(OWNED))
def test_what_the_agent_owns_is_refused_in_every_spelling(flag: str) -> None:
    underscored = "--" + flag[2:].replace("-", "_")
    for args in ((flag,), (flag, "x"), (f"{flag}=x",), (underscored, "x"), (f"{underscored}=x",), (f"{flag}.a.b", "x"),
                 (f"{flag}.a+", "x"), ("--seed", "1", flag, "x")):  # fmt: skip
        assert [problem.code for problem in validate(args)] == ["engine-arg-owned"]


@pytest.mark.parametrize(
    "flag",
    ["--host", "--port", "--uds", "--kv-transfer-config", "--served-model-name", "--api-key", "--tensor-parallel-size",
     "--model", "--revision", "--shutdown-timeout", "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs",
     "--ssl-cert-reqs", "--enable-log-requests", "--enable-log-outputs", "--log-error-stack", "--log-level",
     "--enable-fault-tolerance", "--fault-tolerance-config"],
)  # fmt: skip
def test_the_agent_owns_what_places_names_protects_and_connects(flag: str) -> None:
    problem = validate([flag, "x"])[0]

    assert flag in problem.message
    assert problem.message.count(":") == 1
    assert problem.fix == "Remove it."


@pytest.mark.parametrize("short", ["--hos", "--por", "--served", "--served_model", "--tensor-par", "--kv-tr", "--api-k",
                                   "--mod", "--middle", "--conf", "--reasoning-parser-p", "--reasoning-p"])  # fmt: skip
def test_the_beginning_of_an_owned_argument_is_refused_too(short: str) -> None:
    assert codes(short, "x") == ["engine-arg-owned"]


def test_a_negation_is_the_same_argument() -> None:
    assert codes("--no-enable-ssl-refresh") == ["engine-arg-owned"]


@pytest.mark.parametrize("arg", ["-tp", "-tp=2", "-O3", "-q", "-", "--", "--=x"])
def test_short_forms_are_refused(arg: str) -> None:
    assert codes("--seed", "1", arg) == ["engine-arg-short"]


@pytest.mark.parametrize("arg", ["model", "0.0.0.0", "-1"])
def test_the_first_must_be_a_flag(arg: str) -> None:
    assert codes(arg) == ["engine-arg-not-a-flag"]


def test_sizes_are_bounded() -> None:
    assert codes(*["--seed"] * (MAX_ARGS + 1)) == ["engine-args-too-many"]
    assert codes("--seed", "x" * 4097) == ["engine-arg-too-long"]
    assert codes("--seed", "") == ["engine-arg-empty"]
    assert codes("--seed", "a\0b") == ["engine-arg-control-characters"]


def test_an_argument_is_given_once() -> None:
    assert codes("--seed", "1", "--seed=2") == ["engine-arg-twice"]
    assert codes("--hf-overrides.a", "1", "--hf-overrides.b", "2") == []


def test_the_value_is_the_one_the_engine_takes() -> None:
    args = ("--max-model-len", "10", "--enforce-eager", "--max_model_len=20", "--json.max-model-len", "30")

    assert value_of(args, "--max-model-len") == "20"
    assert value_of(args, "--enforce-eager") == ""
    assert value_of(args, "--seed") is None
    assert value_of(("--seed", "-1"), "--seed") == "-1"
    assert value_of(("--a", "--seed=5"), "--a") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2048", 2048), ("32k", 32_000), ("32K", 32_768), ("1.5k", 1500), ("1M", 1_048_576), ("auto", None), ("", None)],
)
def test_numbers_are_read_as_the_engine_reads_them(text: str, expected: int | None) -> None:
    assert int_value((f"--max-model-len={text}",), "--max-model-len") == expected


ARGS = st.lists(st.text(max_size=20) | st.sampled_from(sorted(OWNED)).map(lambda f: f.replace("-", "_")), max_size=6)


@given(ARGS)
def test_nothing_that_passes_names_an_owned_argument(args: list[str]) -> None:
    if not validate(args):
        assert not any(arg.startswith("--") and flag_name(arg) in OWNED for arg in args)


@given(st.sampled_from(sorted(OWNED)), st.integers(3, 30))
def test_no_abbreviation_slips_past(flag: str, length: int) -> None:
    """argparse completes an unambiguous beginning, so that each one must be refused."""
    assert codes(flag[: max(3, length)], "x") == ["engine-arg-owned"]


@pytest.mark.parametrize("given", [["--a-b", "1"], ["--a-b=1"], ["--a_b", "-1"], ["--a_b=1"]])
def test_one_argument_is_left_out_in_every_spelling_and_all_others_stay(given: list[str]) -> None:
    others = ["--x", "y", "--a-b-c=2", "--a-b.c", "3", "--z"]
    assert without([*others[:2], *given, *others[2:]], "--a-b") == others
    assert without(others, "--a-b") == others
