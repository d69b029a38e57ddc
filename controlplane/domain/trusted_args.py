"""Engine arguments that make an engine run code or open files of its node. Who may give them decides about every node
that the deployment runs on, with the rights of the agent's user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.domain.engine_args import flag_name

_CODE = "it makes the engine run code that this fleet has not seen"
_FILES = "it makes the engine open files of the node, or fetch others"
_MODEL = "it makes the engine take the model for another than the one that was registered"
_CLIENTS = "it lets clients send what the engine then runs or unpacks"

_BY_REASON: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        _CODE,
        (
            "--trust-remote-code",
            "--code-revision",
            "--speculative-config",
            "--spec-method",
            "--spec-model",
            "--structured-outputs-config",
            "--compilation-config",
            "--additional-config",
            "--tool-server",
        ),
    ),
    (
        _FILES,
        (
            "--tokenizer",
            "--tokenizer-revision",
            "--chat-template",
            "--hf-config-path",
            "--generation-config",
            "--download-dir",
            "--model-loader-extra-config",
            "--lora-modules",
            "--default-mm-loras",
            "--mm-encoder-fp8-scale-path",
            "--mm-encoder-fp8-scale-save-path",
            "--mm-processor-kwargs",
        ),
    ),
    (_MODEL, ("--hf-overrides",)),
    (
        _CLIENTS,
        (
            "--trust-request-chat-template",
            "--trust-request-mm-kwargs",
            "--enable-prompt-embeds",
            "--enable-mm-embeds",
        ),
    ),
)
TRUSTED: dict[str, str] = {flag: reason for reason, flags in _BY_REASON for flag in flags}


def trusted_flag(arg: str) -> str:
    """Which of them the engine would read in this word, however it is spelt or shortened; "" where none."""
    name = flag_name(arg)
    name = "--" + name.removeprefix("--no-") if name.startswith("--no-") else name
    if name in TRUSTED or not name.startswith("--") or name == "--":
        return name if name in TRUSTED else ""
    return next((flag for flag in TRUSTED if flag.startswith(name)), "")


def settings(args: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of them in `args`: its full name and its words as given, values included."""
    for start, arg in enumerate(args):
        if flag := trusted_flag(arg):
            end = start + 1
            while end < len(args) and not args[end].startswith("--"):
                end += 1
            yield flag, tuple(args[start:end])


def added(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Full names of those that `after` has and `before` has not, or has with another value, each once. What is left out
    is nothing added: without it the engine does less."""
    had = set(settings(before))
    return list(dict.fromkeys(flag for flag, words in settings(after) if (flag, words) not in had))
