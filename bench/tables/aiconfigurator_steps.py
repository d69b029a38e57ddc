"""Steps of engines by NVIDIA AIConfigurator's own database, as a table that `forebay profile import` reads.

    pip install aiconfigurator==0.12.0          # in an environment of its own: nothing of Forebay needs it
    python bench/tables/aiconfigurator_steps.py bench/tables/aiconfigurator_0_12.csv.gz

Its pareto.csv has the engines that it would choose, with prompts of others in their token times; this has one step of
prefill and one of decode, each alone, by size, for the engines of the reference cases that bench.sizing compares. Times
are as its database has them, before the factors that it puts on whole plans (1.1 on prefill, 1.08 on decode). An engine
of data-parallel ranks is a model of its own in the table, and all of its GPUs count as `tp`.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LLAMA, GPT_OSS = "nvidia/Llama-3.1-70B-Instruct-FP8", "openai/gpt-oss-120b"
BACKEND, OSL = "vllm", 150
ALONE = (128, 256, 512, 1024, 2048, 3000, 4096, 8192)  # tokens of one prompt
TOGETHER = {  # prompts of so many tokens each, or sequences after them
    512: (2, 8, 32, 128, 256),
    3000: (2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256),
}
MOST_STEP = 12_288  # tokens of a step of prefill
COLUMNS = (
    "model", "isl", "osl", "bs", "ttft", "tpot", "tp", "pp", "dp", "backend", "version", "system", "ctx_tokens",
    "prefill_step_ms", "genonly_step_ms",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Of an engine, in GPUs: tensor parallel, data parallel attention, and how experts are split."""

    model: str
    system: str
    tp: int
    dp: int = 1
    expert_tp: int | None = None
    expert_ep: int | None = None

    @property
    def name(self) -> str:
        parts = [f"dp{self.dp}"] if self.dp > 1 else []
        parts += [f"ep{self.expert_ep}"] if (self.expert_ep or 1) > 1 else []
        return " ".join([self.model, *parts])


SHAPES = (
    *(Shape(LLAMA, system, tp) for system in ("h100_sxm", "h200_sxm") for tp in (1, 2, 4, 8)),
    *(Shape(GPT_OSS, "h100_sxm", tp, 1, tp, 1) for tp in (1, 2, 4, 8)),
    *(Shape(GPT_OSS, "h100_sxm", tp, 1, 1, tp) for tp in (2, 4)),
    *(Shape(GPT_OSS, "h100_sxm", 1, dp, dp, 1) for dp in (2, 4)),
)


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    estimate = importlib.import_module("aiconfigurator.cli.api").cli_estimate
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for shape in SHAPES:
        for row in rows(estimate, shape):
            table.writerow(row)
        print(shape, flush=True)
    with Path(sys.argv[1]).open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(text.getvalue().encode())


def rows(estimate: Any, shape: Shape) -> Iterator[dict[str, Any]]:
    loads = [(isl, 1) for isl in ALONE] + [(size, batch) for size, batches in TOGETHER.items() for batch in batches]
    for isl, batch in loads:
        together = max(1, min(batch, MOST_STEP // isl))
        prefill = asked(estimate, shape, mode="static_ctx", isl=isl, osl=2, batch_size=together)
        decode = asked(estimate, shape, mode="static_gen", isl=isl, osl=OSL, batch_size=batch)
        told = decode.get()
        yield {
            "model": shape.name, "isl": isl, "osl": OSL, "bs": batch * shape.dp, "ttft": round(prefill.ttft, 3),
            "tpot": round(decode.tpot, 3), "tp": shape.tp * shape.dp, "pp": 1, "dp": 1, "backend": BACKEND,
            "version": f"{told['version']} by AIConfigurator 0.12.0", "system": shape.system,
            "ctx_tokens": isl * together * shape.dp, "prefill_step_ms": round(prefill.ttft, 3),
            "genonly_step_ms": round(decode.tpot, 3),
        }  # fmt: skip


def asked(estimate: Any, shape: Shape, **load: Any) -> Any:
    return estimate(
        shape.model, shape.system, backend_name=BACKEND, tp_size=shape.tp, attention_dp_size=shape.dp,
        moe_tp_size=shape.expert_tp, moe_ep_size=shape.expert_ep, **load,
    )  # fmt: skip


if __name__ == "__main__":
    main()
