"""One chart of 64 GPUs over 24 hours: how long the server takes for its samples, and Chromium to draw them.

usage: python -m bench.charts [--quick]

A real web process on SQLite with a day of samples of eight simulated nodes with eight GPUs; their figures are invented,
what is measured is time. Each query goes over HTTP and JSON; each drawing is what the pages do with the answer, to the
frame after it. --quick: without the rows of ten seconds, which a day is not read from.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running

NODES, GPUS, DAY_S, POINTS = 8, 8, 86400, 360
TIMES = 9
# What is asked, the shape it is drawn in, and the name of its figures. The label is that of all nodes, so that its band
# is made of 64 GPUs' own rows, and not read from the rows of the fleet.
CHARTS = {
    "heat map, 64 rows": ("fleet=true&shape=series", "heat", ""),
    "band of 64 GPUs": ("label=bench=yes&shape=band", "band", "gpus_band_"),
    "band of the fleet": ("fleet=true&shape=band", "band", "band_"),
}
# Draws what it is given as the pages do, and tells the milliseconds of each drawing to the end of the next frame.
DRAW = """async ({body, shape, times, from, to}) => {
  const { plot, plotly } = await import("/static/js/plot.js"), { picture } = await import("/static/js/samples.js");
  await plotly();
  const took = [], frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (let n = 0; n < times; n += 1) {
    const box = document.createElement("div");
    document.querySelector("main").prepend(box);
    await frame();
    const began = performance.now();
    await plot(box, picture([body], { shape }), { heat: shape === "heat", from, to, height: 260, width: 1200 });
    await frame();
    took.push(performance.now() - began);
    if (!box.querySelector(".main-svg")) throw new Error("nothing was drawn");
    if (n < times - 1) box.remove();
  }
  return took;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--picture", type=Path, help="a PNG of the last drawings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home:
        site = Running(Path(home))
        site.start(gateway=False)
        try:
            result = measure(site, quick=options.quick, kept=options.picture)
        finally:
            site.stop()
    print(f"RESULT {json.dumps(result)}")


def measure(site: Running, *, quick: bool, kept: Path | None) -> dict[str, Any]:
    password = site.make_admin()
    os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
    now = int(time.time() // 60) * 60
    rows = fill(now, quick=quick)
    print(f"  {NODES * GPUS} GPUs, 24 h, {rows:,} rows in the database")
    result: dict[str, Any] = {"rows": rows, "gpus": NODES * GPUS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        page = browser.new_page(base_url=site.web, viewport={"width": 1440, "height": 1000})
        sign_in(page, password)
        print(f"  {'':<20} {'query p50':>10} {'max':>8} {'draw p50':>10} {'max':>8}   ms; {POINTS} points")
        for name, (asked, shape, prefix) in CHARTS.items():
            queried, body = query(page, asked, now)
            drawn = page.evaluate(DRAW, {"body": body, "shape": shape, "times": TIMES, "from": now - DAY_S, "to": now})
            points = [point for line in body["series"] or body["bands"] for point in line["points"]]
            lines = len(body["series"] or body["bands"])
            assert len(points) >= lines * (POINTS - 1), len(points)
            assert sum(point[1] is not None for point in points) >= 0.98 * len(points), "too little to draw"
            print(
                f"  {name:<20} {median(queried):>10.0f} {max(queried):>8.0f} {median(drawn):>10.0f} {max(drawn):>8.0f}"
            )
            result |= {f"{prefix}query_ms": round(median(queried), 1), f"{prefix}draw_ms": round(median(drawn), 1)}
        if kept:
            page.screenshot(path=kept)
        browser.close()
    return result


def query(page: Page, asked: str, now: int) -> tuple[list[float], Any]:
    """Milliseconds of each request, and the last answer."""
    path = f"/api/v1/samples?{asked}&metric=utilization&from={now - DAY_S}&to={now}&step={DAY_S // POINTS}"
    took, body = [], None
    for _ in range(TIMES):
        began = time.perf_counter()
        answer = page.request.get(path)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.ok, answer.text()
        body = answer.json()
    return took, body


def sign_in(page: Page, password: str) -> None:
    page.goto("/accounts/login/")
    page.fill("[name=login]", "admin")
    page.fill("[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url("**/")
    page.goto("/nodes/")  # whose own charts do not draw meanwhile


def fill(now: int, *, quick: bool) -> int:
    """A day of rows as the recorder and the rollup leave them: of ten seconds, and of a minute."""
    import django

    django.setup()
    from bench._rows import make
    from controlplane.fleet.models import Gpu, Node
    from controlplane.telemetry import fleet_rows
    from controlplane.telemetry.models import GpuMinute, GpuSample, Rollup
    from controlplane.telemetry.spans import TIERS, moment

    make(NODES, GPUS)
    Node.objects.update(labels={"bench": "yes"})
    gpus = list(Gpu.objects.order_by("pk").values_list("pk", flat=True))
    rows = write(GpuMinute, moments(gpus, now, 60))
    fleet_rows.make(TIERS[1], (moment(now - DAY_S), moment(now)))
    Rollup.objects.create(width_s=60, upto=datetime.fromtimestamp(now, UTC))
    return rows if quick else rows + write(GpuSample, moments(gpus, now, 10))


def moments(gpus: list[int], now: int, every_s: int) -> Iterator[tuple[Any, ...]]:
    """With a gap of a quarter of an hour, as after an outage."""
    for at in range(now - DAY_S, now, every_s):
        if now - 30000 < at < now - 29100:
            continue
        when = datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(" ")
        day = 0.5 + 0.4 * math.sin(at / DAY_S * 2 * math.pi)
        for gpu in gpus:
            load = max(0.0, min(1.0, day + 0.1 * math.sin(at / 700 + gpu * 1.7)))
            yield gpu, when, load, 72 * 2**30, 74 + 560 * load, 31 + 40 * load, every_s


def write(model: Any, rows: Iterator[tuple[Any, ...]]) -> int:
    from django.db import connection, transaction

    columns = "gpu_id, at, utilization, memory_used_bytes, power_w, temperature_c, reports"
    with transaction.atomic(), connection.cursor() as cursor:
        table = connection.ops.quote_name(model._meta.db_table)
        cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s)", list(rows))
        cursor.execute(f"SELECT COUNT(*) FROM {table}")
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    main()
