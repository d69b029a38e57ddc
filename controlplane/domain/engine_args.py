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
_NODE = "it makes the engine load code or open files of the node"
_ENDPOINTS = "it opens endpoints that control the engine from outside of the agent"
_CONFIG = "it would bring arguments from a file that nobody here has seen"
_PROMPTS = "it writes what clients ask and are answered into the engine's log, which every viewer may read"
_DEBUG = (
    "at DEBUG the engine writes what clients ask into its log, and above INFO it leaves out what people look for there"
)
_STOPS = "it makes the engine print something and stop"
_WATCHED = "health checks, metrics and routing need the engine's own paths and figures"
_SHUTDOWN = "the agent drains and stops engines itself"

_OWNED_BY_REASON: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_LISTENING, ("--host", "--port", "--uds", "--grpc", "--grpc-port", "--headless", "--api-server-count")),
    (_WATCHED, ("--root-path", "--disable-log-stats", "--tokens-only")),
    (_NAMING, ("--model", "--model-tag", "--revision", "--served-model-name")),
    (_KEYS, ("--api-key", "--hf-token")),
    (
        _TLS,
        (
            "--ssl-keyfile",
            "--ssl-certfile",
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-ciphers",
            "--enable-ssl-refresh",
        ),
    ),
    (
        _KV,
        (
            "--kv-transfer-config",
            "--kv-events-config",
            "--ec-transfer-config",
            "--ec-manager-config",
            "--kv-offloading-size",
            "--kv-offloading-backend",
        ),
    ),
    (
        _SHAPE,
        (
            "--tensor-parallel-size",
            "--pipeline-parallel-size",
            "--data-parallel-size",
            "--data-parallel-size-local",
            "--data-parallel-rank",
            "--data-parallel-start-rank",
            "--data-parallel-address",
            "--data-parallel-rpc-port",
            "--data-parallel-backend",
            "--data-parallel-hybrid-lb",
            "--data-parallel-external-lb",
            "--data-parallel-multi-port-external-lb",
            "--data-parallel-supervisor-port",
            "--prefill-context-parallel-size",
            "--distributed-executor-backend",
            "--nnodes",
            "--node-rank",
            "--master-addr",
            "--master-port",
            "--device",
            "--device-ids",
            "--enable-elastic-ep",
        ),
    ),
    (_SHUTDOWN, ("--shutdown-timeout",)),
    (
        _NODE,
        (
            "--middleware",
            "--tool-parser-plugin",
            "--reasoning-parser-plugin",
            "--io-processor-plugin",
            "--logits-processors",
            "--worker-cls",
            "--worker-extension-cls",
            "--scheduler-cls",
            "--model-class-overrides",
            "--log-config-file",
            "--logging-config",
            "--allowed-local-media-path",
        ),
    ),
    (
        _ENDPOINTS,
        (
            "--enable-scale-out",
            "--weight-transfer-config",
            "--profiler-config",
            "--enable-fault-tolerance",  # its endpoints ask for no key
            "--fault-tolerance-config",
        ),
    ),
    (_CONFIG, ("--config",)),
    (_PROMPTS, ("--enable-log-requests", "--enable-log-outputs", "--log-error-stack")),
    (_DEBUG, ("--log-level",)),
    (_STOPS, ("--help", "--version")),
)
_WHOLE = {"--reasoning-parser"}  # arguments of their own, though an owned one begins with them
OWNED: dict[str, str] = {flag: reason for reason, flags in _OWNED_BY_REASON for flag in flags}


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
    name = "--" + name.removeprefix("--no-") if name.startswith("--no-") else name
    if name in OWNED or name in _WHOLE or len(name) <= 2:
        return OWNED.get(name, "")
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


def without(args: Sequence[str], flag: str) -> list[str]:
    """All others, as they are: `--a-b x`, `--a-b=x` and `--a_b` are left out, pieces such as `--a-b.c` stay."""
    kept, skip = list[str](), False
    for arg in args:
        if skip and not _is_flag(arg):
            continue
        meant = arg.startswith("--") and "." not in arg.split("=", 1)[0] and flag_name(arg) == flag
        skip = meant and "=" not in arg
        if not meant:
            kept.append(arg)
    return kept


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
