"""vLLM plugin for CPU hosts: lets NIXL's progress thread sleep between polls.

NIXL's Python API sets the thread's poll delay to zero, so every idle engine burns a core and, where cores are few,
starves the others. With a delay the thread still wakes at once for UCX events.
"""

from __future__ import annotations

import logging
import os

DELAY_US = int(os.environ.get("FOREBAY_NIXL_POLL_US", "10000"))
log = logging.getLogger("vllm.forebay")


def register() -> None:
    """Called by vLLM in each of its processes."""
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
