"""Tables as others write them, with times of a law that is known."""

from __future__ import annotations

SPLITWISE = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
PAIRS = (
    "model,isl,osl,prefix,concurrency,(p)bs,(d)bs,ttft,tpot,(p)tp,(p)pp,(p)dp,(p)backend,(p)version,(p)system,"
    "(d)tp,(d)pp,(d)dp,(d)backend,(d)version,(d)system\n"
)
AGGREGATED = "model,isl,osl,prefix,bs,ttft,tpot,tp,pp,dp,backend,version,system\n"


def step_ms(tokens: int) -> float:
    """Plateau 20,000 tokens/s; 95% of it at 1,900 tokens."""
    return 5.0 + 0.05 * tokens


def itl_ms(batch: int, context: int) -> float:
    return 10.0 + 0.1 * batch + 1e-4 * batch * context


def splitwise(model: str = "llama", gpu: str = "h100") -> str:
    rows = [
        f"{model},{gpu},{size},{batch},128,{step_ms(size * batch)},{itl_ms(batch, size + 64)},4"
        for size, batch in ((128, 1), (256, 1), (512, 1), (1024, 1), (2048, 1), (4096, 1), (512, 16), (2048, 8))
    ]
    return SPLITWISE + "\n".join(rows) + "\n"


def pairs() -> str:
    """Prefill engines of two GPUs, decode engines of four, and a row of two pipeline stages."""
    rows = [
        f"llama,1000,200,0,8,{p},{d},{step_ms(1000 * p)},{itl_ms(d, 1100)},2,1,1,vllm,0.12.0,h100_sxm,"
        f"2,1,1,vllm,0.12.0,h100_sxm"
        for p, d in ((1, 1), (2, 8), (4, 32), (8, 64))
    ]
    staged = "llama,1000,200,0,8,1,1,1,1,2,2,1,vllm,0.12.0,h100_sxm,2,1,1,vllm,0.12.0,h100_sxm"
    return PAIRS + "\n".join([*rows, staged]) + "\n"


def aggregated() -> str:
    rows = [
        f"llama,{isl},200,0,{batch},{step_ms(isl) * batch},{itl_ms(batch, isl + 100)},2,1,1,vllm,0.12.0,h200_sxm"
        for isl in (500, 1000, 4000)
        for batch in (1, 8)
    ]
    return AGGREGATED + "\n".join(rows) + "\n"
