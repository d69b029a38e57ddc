"""Run a program that ends when its parent does: `python tether.py PARENT_PID program args...`

A supervisor that is killed outright can clean nothing up. The kernel can: it sends SIGTERM to a tethered
program when the thread that started it is gone. The setting survives exec; a race is closed by looking at the
parent once more. A program of its own instead of a preexec_fn, which is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """From now on SIGTERM comes when the thread of `parent` that started this process is gone; if it is, end now."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def main(parent: int, command: list[str]) -> None:
    tie(parent)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
