"""What measuring a real engine says, and what its knee is worth: a CPU engine is profiled by `forebay profile run`, the
smallest batch that fills it is applied, and bursts of prompts are sent before and after.

    python -m bench.profile [--quick]

SmolLM2-135M, a prefill and a decode engine on a CPU slot each; the prefill engine is measured. A burst is PROMPTS
different prompts at once, through the gateway and both engines; its times to the first token are as clients see them.
--quick: the measuring alone, of an engine in this process whose laws are known: starting real ones takes longer. It
shows how near what is measured comes to them; only the full run measures a real engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import aiohttp

from bench._streams import WORDS
from tests.e2e.stack import ROOT, Stack, eventually
from tests.planning.law_engine import LawEngine

PROMPTS, BURSTS = 6, 3
WORDS_EACH = 380  # about 400 tokens
QUICK_CONTEXT, QUICK_S = 2048, 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    if parser.parse_args().quick:
        with tempfile.TemporaryDirectory(prefix="forebay-profile-") as folder:
            asyncio.run(quick(Path(folder)))
        return
    home = Path(tempfile.mkdtemp(prefix="forebay-profile-")) / "home"
    stack = Stack(home, demo="smollm2", slots=2)
    try:
        print(f"up after {stack.up():.0f} s", flush=True)
        in_float32(stack)
        profile = measured(stack)
        before = asyncio.run(bursts(stack, BURSTS))
        applied = restarted(stack, profile)
        after = asyncio.run(bursts(stack, BURSTS))
    finally:
        stack.clean_up()
    report(profile, applied, before, after)


async def quick(folder: Path) -> None:
    """The sweep of an engine that keeps to laws, and how far what was found is off them."""
    os.environ |= {"DJANGO_SETTINGS_MODULE": "controlplane.settings", "FOREBAY_HOME": str(folder)}
    import django

    django.setup()
    from controlplane.domain.fitting import speed
    from controlplane.domain.sweep import Room
    from controlplane.gateway.table import Engine
    from controlplane.planning.measuring import Asked, Progress, measure

    law = LawEngine(a=20.0, b=0.2, o=20.0, u=1.0, context=QUICK_CONTEXT, sequences=16)
    await law.start()
    try:
        reached = Engine.at(1, "bench/p0", f"http://127.0.0.1:{law.port}", law.key)
        if reached is None:
            raise SystemExit("the engine cannot be reached")
        began = time.monotonic()
        profile, notes = await measure(
            Asked(reached, "m", "known", "CPU", 1, "", (), Room(context=0)), Progress(), budget_s=QUICK_S
        )
        took = time.monotonic() - began
    finally:
        await law.stop()
    found = speed(profile)
    steps = [abs(one.step_ms / (law.a + law.b * one.tokens) - 1.0) for one in profile.prefill]
    tokens = [abs(one.itl_ms / (law.o + law.u * one.concurrency) - 1.0) for one in profile.decode]
    print(f"{len(steps)} steps of prefill and {len(tokens)} of decode of a known engine, measured in {took:.0f} s")
    print(
        f"off its laws by {mean(steps):.1%} (worst {max(steps):.1%}) and {mean(tokens):.1%} (worst {max(tokens):.1%})"
    )
    for note in notes:
        print(note)
    figures = {"prefill_off": round(mean(steps), 4), "decode_off": round(mean(tokens), 4), "took_s": round(took, 1)}
    print("RESULT", json.dumps({"knee": found.knee.tokens, **figures}), flush=True)


def in_float32(stack: Stack) -> None:
    """A CPU without bf16 instructions is as slow a token in large steps as in small ones: it has no knee to find."""
    found = stack.rest("GET", "/deployments")["results"][0]
    stack.rest("PATCH", f"/deployments/{found['id']}", json={"engine_args": ["--dtype=float32"], "force": True})
    time.sleep(3.0)
    ready = "both engines started again"
    eventually(lambda: all(one["confirmed"] for one in stack.partitions()), within_s=300, what=ready)


def measured(stack: Stack) -> dict[str, object]:
    found = stack.partition("prefill")
    name = f"{found['node']['name']}/{found['name']}"
    began = time.monotonic()
    profile = json.loads(forebay(stack, "profile", "run", stack.demo, "--partition", name, "--force", "--json"))
    print(f"measured in {time.monotonic() - began:.0f} s")
    print(forebay(stack, "profile", "show", str(profile["id"])), flush=True)
    return dict(profile)


def restarted(stack: Stack, profile: dict[str, object]) -> str:
    """The knee applied, once the engine serves again."""
    prefill = stack.partition("prefill")["id"]
    old = stack.engine_pids()[prefill]
    said = forebay(stack, "profile", "apply", str(profile["id"]), stack.demo, "--force", "--yes")
    print(said.strip(), flush=True)
    eventually(lambda: stack.engine_pids().get(prefill, old) != old, within_s=180, what="the engine replaced")
    stack.wait_serving()
    return said


def forebay(stack: Stack, *words: str) -> str:
    stack.rest("GET", "/me")
    environ = stack.environ | {"FOREBAY_URL": stack.web, "FOREBAY_TOKEN": stack._token}
    run = subprocess.run(
        [sys.executable, "-m", "controlplane.cli", *words], cwd=ROOT, env=dict(os.environ) | environ,
        stdout=subprocess.PIPE, text=True, check=True, timeout=400,
    )  # fmt: skip
    return run.stdout


async def bursts(stack: Stack, number: int) -> list[list[float]]:
    """By burst: milliseconds to the first token of each prompt, in order of their coming. The first burst warms."""
    dice = random.Random(7)
    headers = {"Authorization": f"Bearer {stack.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        found = []
        for _ in range(number + 1):
            texts = [" ".join(dice.choices(WORDS, k=WORDS_EACH)) for _ in range(PROMPTS)]
            found.append(sorted(await asyncio.gather(*(first_ms(session, stack, text) for text in texts))))
            await asyncio.sleep(0.3)
    return found[1:]


async def first_ms(session: aiohttp.ClientSession, stack: Stack, text: str) -> float:
    body = {"model": stack.demo, "prompt": text, "max_tokens": 2, "temperature": 0, "stream": True}
    began = time.perf_counter()
    async with session.post(f"{stack.gateway}/v1/completions", json=body) as response:
        response.raise_for_status()
        first = 0.0
        async for line in response.content:
            if line.startswith(b"data:") and not first:
                first = time.perf_counter()
    return 1e3 * (first - began)


def report(profile: dict[str, object], applied: str, before: list[list[float]], after: list[list[float]]) -> None:
    print(f"TTFT of {PROMPTS} prompts of about {WORDS_EACH + 20} tokens at once, ms, medians of {len(before)} bursts")
    rows = {"the engine's own batch": before, applied.strip().rpartition(" ")[2]: after}
    figures = {}
    for (name, bursts_), key in zip(rows.items(), ("before", "after"), strict=True):
        first, last = median(burst[0] for burst in bursts_), median(burst[-1] for burst in bursts_)
        middle = median(mean(burst) for burst in bursts_)
        print(f"  {name:36} first {first:7.0f}  mean {middle:7.0f}  last {last:7.0f}")
        figures |= {f"{key}_first": round(first), f"{key}_mean": round(middle), f"{key}_last": round(last)}
    print("RESULT", json.dumps({"knee": profile["knee"]["tokens"], **figures}), flush=True)  # type: ignore[index]


if __name__ == "__main__":
    main()
