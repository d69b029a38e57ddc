"""vLLM plugins for CPU hosts, where a core is dear: NIXL polls less, and the engine core is forked, not spawned.

vLLM calls each of these in every one of its processes.
"""

from __future__ import annotations

import logging
import os

DELAY_US = int(os.environ.get("FOREBAY_NIXL_POLL_US", "10000"))
log = logging.getLogger("vllm.forebay")


def quiet_nixl() -> None:
    """NIXL's Python API sets its progress thread's poll delay to zero, so every idle engine burns a core and, where
    cores are few, starves the others. With a delay the thread still wakes at once for UCX events."""
    try:
        from nixl import _bindings as bindings
    except ImportError:
        log.info("NIXL is not installed; nothing to quieten")
        return
    if hasattr(bindings, "forebay_original_agent"):
        return
    original = bindings.forebay_original_agent = bindings.nixlAgent

    def quiet_agent(name: str, config: object) -> object:
        config.pthrDelay = DELAY_US  # type: ignore[attr-defined]
        return original(name, config)

    bindings.nixlAgent = quiet_agent


def fork_engine_core() -> None:
    """vLLM's CPU platform spawns the engine core, which then imports everything a second time. Forked, an engine
    starts with about 40 % less CPU time and uses a quarter less memory. Without an accelerator there is no driver state
    that a fork would break; FOREBAY_CPU_SPAWN=1 goes back to spawning."""
    if os.environ.get("FOREBAY_CPU_SPAWN") == "1":
        return
    import multiprocessing

    try:
        from vllm.v1.engine import utils
    except ImportError:
        log.info("this vLLM starts its engine core in another way; left as it is")
        return
    utils.get_mp_context = lambda: multiprocessing.get_context("fork")
