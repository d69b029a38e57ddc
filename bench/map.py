"""How smoothly the fleet map scrolls while it is live: a thousand simulated nodes of eight GPUs in a real Chromium.

    python -m bench.map [--nodes 1000] [--seconds 10] [--quick]

Reports of all nodes come once a second; the page scrolls up and down and notes how long each of its frames took, and
every task of its own that held it up for 50 ms or more: at a reader's pace, then as fast as somebody flings it, with a
processor that Chromium slows down to a quarter, which tells how much is in hand on a lesser or busier machine.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running, temporary

WATCH = """
async ([seconds, pace]) => {
  const deltas = [], long = [];
  const observer = new PerformanceObserver((list) => list.getEntries().forEach((entry) => long.push(entry.duration)));
  observer.observe({ type: "longtask" });
  const end = performance.now() + seconds * 1000;
  const bottom = document.documentElement.scrollHeight - innerHeight - 1;
  let last = null, step = pace;
  await new Promise((done) => {
    const tick = (now) => {
      if (last !== null) deltas.push(now - last);
      last = now;
      if (scrollY >= bottom) step = -pace;
      if (scrollY <= 0) step = pace;
      scrollBy(0, step);
      if (performance.now() < end) requestAnimationFrame(tick); else done();
    };
    requestAnimationFrame(tick);
  });
  observer.disconnect();
  return { deltas, long };
}
"""
FRESH = """
async () => {
  const { store, ageOf } = await import("/static/js/live.js");
  const ages = [...store.nodes.values()].map(ageOf).filter((age) => age !== null).sort((a, b) => a - b);
  return { nodes: store.nodes.size, p50: ages[Math.floor(ages.length / 2)], worst: ages[ages.length - 1] };
}
"""
PACE, FLUNG = 12, 60  # pixels a frame
SLOWER = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="110 nodes, five seconds")
    options = parser.parse_args()
    nodes, seconds = (110, 5.0) if options.quick else (options.nodes, options.seconds)
    site = Running(temporary("bench-map"))
    try:
        site.start(gateway=False)
        password = site.make_admin()
        os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
        found = measure(site, password, nodes, seconds)
    finally:
        site.stop()
    print_table(found)
    print("RESULT", json.dumps(found))


def measure(site: Running, password: str, count: int, seconds: float) -> dict[str, Any]:
    import django

    django.setup()
    from bench import _rows

    nodes = _rows.make(count)
    with _rows.Reports(nodes), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, base_url=site.web)
        sign_in(page, password)
        page.wait_for_selector("#light[data-state=live]", timeout=60_000)
        page.wait_for_function(f"document.querySelectorAll('#map .node').length === {count}", timeout=60_000)
        page.wait_for_timeout(3000)
        read = page.evaluate(WATCH, [seconds, PACE])
        fresh = page.evaluate(FRESH)
        page.evaluate("scrollTo(0, 0)")
        throttle = page.context.new_cdp_session(page)
        throttle.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        flung = page.evaluate(WATCH, [seconds / 2, FLUNG])
        browser.close()
    return {
        "nodes": count,
        "gpus": count * 8,
        **frames(read),
        **frames(flung, "slow_"),
        "age_p50_s": round(fresh["p50"], 2),
        "age_max_s": round(fresh["worst"], 2),
    }


def frames(seen: dict[str, list[float]], of: str = "") -> dict[str, float]:
    deltas = sorted(seen["deltas"])
    return {
        f"{of}frames": len(deltas),
        f"{of}frame_p50_ms": round(at(deltas, 0.5), 1),
        f"{of}frame_p95_ms": round(at(deltas, 0.95), 1),
        f"{of}frame_max_ms": round(deltas[-1], 1),
        f"{of}long_tasks": len(seen["long"]),
        f"{of}long_task_max_ms": round(max(seen["long"], default=0.0), 1),
    }


def sign_in(page: Page, password: str) -> None:
    page.goto("/accounts/login/")
    page.fill("[name=login]", "admin")
    page.fill("[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url("**/")


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def print_table(found: dict[str, Any]) -> None:
    print(
        f"{found['nodes']} simulated nodes, {found['gpus']} GPUs, live, scrolling in Chromium without a GPU of its own"
    )
    for what, of in (("read at a steady pace", ""), (f"flung, processor slowed to 1/{SLOWER}", "slow_")):
        p50, p95, most = (found[f"{of}frame_{name}_ms"] for name in ("p50", "p95", "max"))
        print(f"  {what:32} frames p50 {p50} ms   p95 {p95} ms   max {most} ms", end="   ")
        print(f"tasks over 50 ms: {found[f'{of}long_tasks']}, the longest {found[f'{of}long_task_max_ms']} ms")
    print(f"  age of data    p50 {found['age_p50_s']} s   max {found['age_max_s']} s")


if __name__ == "__main__":
    main()
