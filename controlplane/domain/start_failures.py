"""Why a model could not be started, in words that whoever asked for it may read: of a log only what kind of fault it
tells of, never its lines, which name paths, nodes and arguments."""

from __future__ import annotations

import re

# By what agents, the control plane and vLLM (0.32) say; the first that fits.
_KINDS = (
    (r"\bis lost\b|device \S+ is not on this node|ECC error|CUDA error|NVML", "a GPU failed"),
    (r"silent|is to run nothing", "its node is not there any more"),
    (r"was not ready within", "it did not become ready in time"),
    (
        r"out of memory|OutOfMemory|cannot allocate memory|no available memory|KV cache .*(larger|needed)|"
        r"larger than the (available KV cache|maximum number of tokens)|GPU memory utilization",
        "it found too little memory",
    ),
    (
        r"safetensors|weight|checkpoint|config\.json|tokenizer|no such file|not a valid JSON|JSONDecode|"
        r"RepositoryNotFound|GatedRepo|size mismatch|HeaderTooLarge|HeaderTooSmall|"
        r"model architectures?|Unrecognized model",
        "its model files could not be loaded",
    ),
    (r"cannot start", "its node has not what its engine needs"),
)
OTHER = "its engine ended while it started"


def kind(why: str) -> str:
    """Of a failed activation's message."""
    return next((words for pattern, words in _KINDS if re.search(pattern, why, re.IGNORECASE)), OTHER)
