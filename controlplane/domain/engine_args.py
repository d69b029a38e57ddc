"""Which engine arguments a deployment may carry. The agent owns those that place the engine on its node, name it,
protect it and connect it; the rest go to the engine as they are.

The engine reads `--max_model_len`, `--max-model-len`, `--max-model-len=8` and any unambiguous beginning such as
`--max-model` alike, and `--json.key value` as a piece of `--json`; so do we, or the refusals could be walked around.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.domain.problems import Problem

MAX_ARGS = 128
MAX_ARG_LENGTH = 4096  # as in workers.contract.ReplicaSpec

_LISTENING = "the agent chooses where the engine listens, so that engines never collide and stay behind the gateway"
_NAMING = "the model and its served names come from the registered model and the deployment"
_KEYS = "the agent gives each engine its own key and keeps it off the command line"
_TLS = "the gateway speaks to engines by the address the agent reports"
_KV = "the agent writes it, with the connector, the KV lease and the side-channel port of this replica"
_SHAPE = "one engine spans exactly the GPUs of its partition; split the node differently to change it"
_NODE_FILES = "it makes the engine load code or open files of the node"
_WATCHED = "health checks, metrics and routing need the engine's own paths and figures"
_SHUTDOWN = "the agent drains and stops engines itself"

OWNED: dict[str, str] = {
    "--host": _LISTENING,
    "--port": _LISTENING,
    "--uds": _LISTENING,
    "--grpc": _LISTENING,
    "--headless": _LISTENING,
    "--api-server-count": _LISTENING,
    "--root-path": _WATCHED,
    "--disable-log-stats": _WATCHED,
    "--no-enable-log-stats": _WATCHED,
    "--model": _NAMING,
    "--model-tag": _NAMING,
    "--revision": _NAMING,
    "--served-model-name": _NAMING,
    "--config": "it would bring arguments from a file that nobody here has seen",
    "--api-key": _KEYS,
    "--hf-token": _KEYS,
    "--ssl-keyfile": _TLS,
    "--ssl-certfile": _TLS,
    "--ssl-ca-certs": _TLS,
    "--ssl-cert-reqs": _TLS,
    "--ssl-ciphers": _TLS,
    "--enable-ssl-refresh": _TLS,
    "--kv-transfer-config": _KV,
    "--kv-events-config": _KV,
    "--ec-transfer-config": _KV,
    "--tensor-parallel-size": _SHAPE,
    "--pipeline-parallel-size": _SHAPE,
    "--data-parallel-size": _SHAPE,
    "--data-parallel-size-local": _SHAPE,
    "--data-parallel-rank": _SHAPE,
    "--data-parallel-start-rank": _SHAPE,
    "--data-parallel-address": _SHAPE,
    "--data-parallel-rpc-port": _SHAPE,
    "--data-parallel-backend": _SHAPE,
    "--data-parallel-hybrid-lb": _SHAPE,
    "--data-parallel-external-lb": _SHAPE,
    "--prefill-context-parallel-size": _SHAPE,
    "--distributed-executor-backend": _SHAPE,
    "--nnodes": _SHAPE,
    "--node-rank": _SHAPE,
    "--master-addr": _SHAPE,
    "--master-port": _SHAPE,
    "--device": _SHAPE,
    "--device-ids": _SHAPE,
    "--shutdown-timeout": _SHUTDOWN,
    "--middleware": _NODE_FILES,
    "--tool-parser-plugin": _NODE_FILES,
    "--reasoning-parser-plugin": _NODE_FILES,
    "--io-processor-plugin": _NODE_FILES,
    "--logits-processors": _NODE_FILES,
    "--worker-cls": _NODE_FILES,
    "--worker-extension-cls": _NODE_FILES,
    "--scheduler-cls": _NODE_FILES,
    "--log-config-file": _NODE_FILES,
    "--allowed-local-media-path": _NODE_FILES,
    "--profiler-config": "it opens endpoints that start and stop a profiler",
    "--enable-offline-docs": _WATCHED,
    "--help": "it makes the engine print its help and stop",
    "--version": "it makes the engine print its version and stop",
}


def validate(args: Sequence[str]) -> list[Problem]:
    """What is wrong with these arguments; empty when the engine may have them."""
    if len(args) > MAX_ARGS:
        return [_problem("engine-args-too-many", f"{len(args)} engine arguments are too many.",
                         f"Give at most {MAX_ARGS}.")]  # fmt: skip
    problems = [p for index, arg in enumerate(args) for p in _one(index, arg)]
    return problems + _duplicates(args)


def owner_reason(arg: str) -> str:
    """Why the agent owns this argument, or "" where it does not."""
    name = flag_name(arg)
    if name in OWNED:
        return OWNED[name]
    if len(name) <= 2:
        return ""
    return next((reason for owned, reason in OWNED.items() if owned.startswith(name)), "")


def flag_name(arg: str) -> str:
    """`--max_model_len=8` -> `--max-model-len`; `--kv-transfer-config.kv_role` -> `--kv-transfer-config`."""
    return arg.split("=", 1)[0].split(".", 1)[0].rstrip("+").replace("_", "-")


def value_of(args: Sequence[str], flag: str) -> str | None:
    """The value the engine would take for `flag`: the last one given; "" for a bare switch; None where absent."""
    found: str | None = None
    for index, arg in enumerate(args):
        if not arg.startswith("--") or "." in arg.split("=", 1)[0] or flag_name(arg) != flag:
            continue
        _, equals, value = arg.partition("=")
        following = args[index + 1] if index + 1 < len(args) else ""
        found = value if equals else ("" if _is_flag(following) else following)
    return found


def int_value(args: Sequence[str], flag: str) -> int | None:
    """`value_of` as a number, with the engine's own shorthands: 32k is 32,000 and 32K is 32,768."""
    text = (value_of(args, flag) or "").strip()
    scale = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 0)
    try:
        return int(float(text[:-1]) * scale) if scale else int(text)
    except (ValueError, OverflowError):
        return None


def float_value(args: Sequence[str], flag: str) -> float | None:
    text = value_of(args, flag)
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _one(index: int, arg: str) -> Iterator[Problem]:
    if not isinstance(arg, str) or not arg.strip():
        yield _problem("engine-arg-empty", f"Engine argument {index + 1} is empty.", "Remove it.")
        return
    if len(arg) > MAX_ARG_LENGTH:
        yield _problem("engine-arg-too-long", f"Engine argument {index + 1} is {len(arg)} characters long.",
                       f"Give at most {MAX_ARG_LENGTH}; put long text in a file on the nodes.")  # fmt: skip
        return
    if any(ord(char) < 32 and char not in "\t\n" for char in arg):
        yield _problem("engine-arg-control-characters", f"Engine argument {index + 1} holds control characters.",
                       "Type it again without them.")  # fmt: skip
        return
    if not _is_flag(arg):
        if index == 0:
            yield _problem("engine-arg-not-a-flag", f"'{_short(arg)}' does not begin with --.",
                           "Give arguments as --name value or --name=value.")  # fmt: skip
        return
    yield from _flag(arg)


def _flag(arg: str) -> Iterator[Problem]:
    name = flag_name(arg)
    if not arg.startswith("--") or name == "--":
        yield _problem("engine-arg-short", f"'{_short(arg)}' is a short form.",
                       "Write the long name, such as --max-model-len.")  # fmt: skip
        return
    if reason := owner_reason(arg):
        yield _problem("engine-arg-owned", f"{_short(name)} is not yours to set: {reason}.", "Remove it.")


def _duplicates(args: Sequence[str]) -> list[Problem]:
    names = [flag_name(a) for a in args if isinstance(a, str) and a.startswith("--") and "." not in a.split("=")[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [_problem("engine-arg-twice", f"{_short(name)} is given twice.", "Keep one of them.") for name in twice]


def _is_flag(arg: str) -> bool:
    """A dash begins a flag, but -1 and -0.5 are values."""
    return arg.startswith("-") and not arg[1:2].isdigit() and arg[1:2] != "."


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _problem(code: str, message: str, fix: str) -> Problem:
    return Problem(code, message, fix)
