"""Stand-in engines for --quick: a program in vLLM's place, a model folder with facts but no weights, and the texts."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from tests import bytecode
from tests.e2e.stack import ROOT, Stack
from tests.toy_model import Speaking, Writer, tokens_of

TOLD = "--quick: stand-in engines, which invent their text; only the full run measures real ones"
# Of the size that the tiny model of the full runs has.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": 512,
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096,
}  # fmt: skip


def settle(stack: Stack, model: str, folder: Path) -> None:
    """Let a stack that is not up yet start stand-in engines; what that takes lies in `folder`."""
    _model(stack.home, model)
    stack.environ |= {"FOREBAY_VLLM": str(_program(folder)), "FOREBAY_DEVICES": "cpu"}


def _program(folder: Path) -> Path:
    """A `vllm` in `folder` that serves the stand-in engine."""
    path, script = folder / "vllm", ROOT / "tests" / "standin_vllm.py"
    command = shlex.join([sys.executable, "-X", f"pycache_prefix={bytecode.FOLDER}", str(script)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


def _model(home: Path, name: str) -> None:
    """In `home`, where `manage.py up` looks before it makes one with the engine's own Python."""
    folder = home / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))


def text(prompt: str, tokens: int) -> str:
    """What every stand-in engine answers."""
    return "".join(step.text for step in Writer(Speaking(), tokens_of(prompt), tokens).steps())
