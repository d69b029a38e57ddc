"""The agent's command line: join, run, stop."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from workers import __version__
from workers.config import Config, ConfigError, Home, HomeInUse, Settings, host_mark, node_name, own_address
from workers.joining import JoinReply, JoinRequest
from workers.logs import keep_own
from workers.reconcile import GRACE_S
from workers.uplink import JoinFailed, join

log = logging.getLogger("workers")
EX_USAGE, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 64, 69, 75, 78
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
EPILOG = """exit codes of run:
  0   ended by SIGTERM or SIGINT; engines go on, the next run adopts them
  75  another agent holds the home, or reports as this node; do not start again by itself
  78  not joined, or this node was revoked; do not start again by itself

environment:
  FOREBAY_AGENT_HOME    the home folder (default .forebay/agent)
  FOREBAY_VLLM          the vllm program (default: the one in PATH)
  FOREBAY_DEVICES       auto, nvidia, cpu or simulated:N (default auto)
  FOREBAY_CPU_SLOTS     CPU slots offered on a host without NVIDIA driver (default 2)
  FOREBAY_FAST_START    auto: engines on CPU slots are forked from a process that has vLLM imported; off (default auto)
  FOREBAY_ENGINE_PORTS  ports of the engines' servers (default 18100-18199)
  FOREBAY_SIDE_PORTS    ports of the engines' KV side channels (default 18200-18299)
  FOREBAY_AGENT_METRICS host:port where Prometheus may read the agent's figures, without a password (default: none)
  FOREBAY_MODELS        folders of models, separated by colons, whose weights are told of (default: none)
  FOREBAY_MODELS_CAP    what fetched weights may come to, for example 500GiB (default: no cap)
  FOREBAY_MODELS_FREE   what fetching leaves free on the disk (default: a tenth of it)
  FOREBAY_LOG_LEVEL     DEBUG, INFO, WARNING (default INFO)"""


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(
        level=os.environ.get("FOREBAY_LOG_LEVEL", "INFO").upper(),
        format=LOG_FORMAT,
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code: int = options.command(options, Settings.read(options.home))
        return code
    except HomeInUse as error:
        return _fail(error, EX_TEMPFAIL)
    except ConfigError as error:
        return _fail(error, EX_CONFIG)
    except JoinFailed as error:
        return _fail(error, EX_UNAVAILABLE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description="The Forebay node agent: runs on this host the engines that the control plane assigns to it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    joining = commands.add_parser("join", help="join a control plane, then run", description=_join.__doc__)
    joining.add_argument("url", help="of the control plane, for example https://forebay.example")
    token = os.environ.get("FOREBAY_JOIN_TOKEN")  # other users of the host may read a command line
    joining.add_argument(
        "--token", default=token, required=not token, help="join token, from the Nodes page (or FOREBAY_JOIN_TOKEN)"
    )
    joining.add_argument("--name", help="of this node (default: the host's name)")
    joining.add_argument("--address", help="where the gateway and other nodes reach this host's engines")
    joining.add_argument("--bind", default="", help="address the engines listen on (default: --address)")
    joining.add_argument("--no-run", action="store_true", help="only join")
    joining.set_defaults(command=_join)
    running = commands.add_parser("run", help="run the agent of a joined node", description=_run.__doc__)
    running.set_defaults(command=_run)
    stopping = commands.add_parser(
        "stop", help="stop this node's engines; the agent must not be running", description=_stop.__doc__
    )
    stopping.add_argument(
        "--grace", type=float, default=GRACE_S, help=f"seconds for requests in flight (default {GRACE_S:g})"
    )
    stopping.set_defaults(command=_stop)
    for command in (joining, running, stopping):
        command.add_argument("--home", type=Path, help="the agent's folder (default $FOREBAY_AGENT_HOME)")
    return parser


def _join(options: argparse.Namespace, settings: Settings) -> int:
    """Trades a join token for this node's own credentials, writes them to the home, and runs the agent. Joining
    again from the same home keeps the node's identity and its engines."""
    url = urlsplit(options.url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        return _fail(ConfigError(f"{options.url!r} is not a URL of a control plane"), EX_USAGE)
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        log.warning("%s is not https: the node's token and the engines' keys can be read on the way", options.url)
    settings.home.hold()
    address = options.address or ("127.0.0.1" if url.hostname in LOOPBACK else own_address(url.hostname))
    instance = _known_instance(settings.home) or uuid.uuid4().hex
    request = JoinRequest(
        token=options.token,
        name=node_name(options.name or socket.gethostname()),
        address=address,
        instance=instance,
        agent_version=__version__,
        at=time.time(),
    )
    with httpx.Client() as client:
        reply = join(client, options.url, request)
    config = _config(options, reply, address, instance, settings.home)
    settings.home.save(config)
    log.info("joined as node %d (%s)", config.node, config.name)
    return 0 if options.no_run else _run_held(settings, config)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    """Runs the agent until SIGTERM or SIGINT. Its engines outlive it, and the next run adopts them."""
    settings.home.hold()
    return _run_held(settings, settings.home.load())


def _stop(options: argparse.Namespace, settings: Settings) -> int:
    """Stops every engine of this home: SIGTERM, and SIGKILL after the grace. Refuses while an agent runs, for it
    would start them again; so will the next run."""
    from workers.runtime import stop_engines

    settings.home.hold()
    count = stop_engines(settings, settings.home.load(), options.grace)
    print(f"{count} engines stopped")
    return 0


def _run_held(settings: Settings, config: Config) -> int:
    from workers.runtime import Runtime

    keep_own(settings.home.logs, LOG_FORMAT)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    return Runtime(settings, config).run(stop)


def _known_instance(home: Home) -> str:
    """Of an earlier join of this very home; a copied home gets a new one."""
    try:
        return home.load().instance
    except ConfigError:
        return ""


def _config(options: argparse.Namespace, reply: JoinReply, address: str, instance: str, home: Home) -> Config:
    return Config(
        url=options.url,
        address=address,
        bind=options.bind,
        instance=instance,
        host=host_mark(home.path),
        **{key: value for key, value in msgspec.structs.asdict(reply).items() if key != "at"},
    )


def _fail(error: Exception, code: int) -> int:
    print(f"forebay agent: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: it would wait for probes, which may be in the middle of a minute-long request.
    os._exit(exit_code)
