"""A backtest as one HTML file that needs no server: figures, table, and what was asked."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from django.conf import settings

PLOTLY = Path("static/vendor/plotly-basic.min.js")
COLUMNS = (
    ("coverage", "Coverage", 3),
    ("coverage_busy", "in busy windows", 3),
    ("mean_reserve", "Mean reserve", 1),
    ("mean_reserve_at_equal_coverage", "at equal coverage", 1),
    ("pinball", "Pinball", 3),
    ("cold_per_activation", "Cold per activation", 4),
    ("held_over_used", "Held over used", 2),
)


def page(result: dict[str, Any], told: dict[str, Any]) -> str:
    """`result`: as `backtests.as_json`; `told`: as `backtests.told`."""
    plotly = (settings.BASE_DIR / PLOTLY).read_text(encoding="utf-8")
    data = json.dumps({"result": result, "told": told}).replace("<", "\\u003c")
    title = f"Backtest of {escape(', '.join(result['traces']))}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>{escape(_asked(result))}</p>{"".join(f"<p>{escape(note)}</p>" for note in result["notes"])}
<h2>Active models and reserve</h2><div id="fan" class="figure"></div>
<h2>Held against cold</h2>
<p>Towards the lower left is better. Diamonds are bounds: static peak and clairvoyant. Keep-alive
only, where every activation is cold, is in the table.</p>
<div id="trade" class="figure"></div>
<h2>Coverage against what was asked</h2><div id="calibration" class="figure"></div>
<h2>Methods</h2><div class="wide">{_table(result)}</div>
<script>{plotly}</script><script type="application/json" id="data">{data}</script><script>{SCRIPT}</script>
</body></html>
"""


def _asked(result: dict[str, Any]) -> str:
    return (
        f"{result['models']} models, keep-alive {result['tau_s']:g} s, horizon {result['horizon_s']:g} s, decided "
        f"every {result['step_s']:g} s; {result['windows']} windows judged from day {result['judge_from_day']:g} on, "
        f"over {result['judged_hours']:.0f} hours; mean peak {_peak(result)}. No decision saw later data."
    )


def _peak(result: dict[str, Any]) -> str:
    return "not known" if result["mean_peak"] is None else f"{result['mean_peak']:.1f}"


def _table(result: dict[str, Any]) -> str:
    levels = list(next(iter(result["methods"].values()))["coverage"])
    top = "".join(f'<th colspan="{len(levels)}" scope="colgroup">{name}</th>' for _, name, _ in COLUMNS)
    below = "".join(f'<th scope="col">{level}</th>' for _ in COLUMNS for level in levels)
    rows = "".join(_row(score, levels) for score in result["methods"].values())
    return (
        f'<table><thead><tr><th rowspan="2" scope="col">Method</th>{top}<th rowspan="2" scope="col">ms</th></tr>'
        f"<tr>{below}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(score: dict[str, Any], levels: list[str]) -> str:
    cells = "".join(
        "<td>-</td>" if score[key][level] is None else f"<td>{score[key][level]:.{digits}f}</td>"
        for key, _, digits in COLUMNS
        for level in levels
    )
    return f'<tr><th scope="row">{escape(score["name"])}</th>{cells}<td>{score["ms_per_decision"]:.1f}</td></tr>'


STYLE = """
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--line:#c9ced6}
@media (prefers-color-scheme:dark){:root{--text:#e6e9ee;--back:#14171c;--line:#3a414b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);margin:1.5rem auto;max-width:72rem;
padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.figure{height:22rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;font-weight:400}
thead th{font-weight:600}th[scope=row],thead tr:first-child th:first-child{text-align:left}
"""

SCRIPT = """
const {result, told} = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#e6e9ee" : "#1b1f24", line = dark ? "#3a414b" : "#c9ced6";
const layout = (x, y, more) => ({paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: {color: ink},
  margin: {l: 60, r: 20, t: 40, b: 50}, legend: {orientation: "h", y: 1.02, yanchor: "bottom"}, hovermode: "closest",
  xaxis: {title: {text: x}, gridcolor: line, zerolinecolor: line},
  yaxis: {title: {text: y}, gridcolor: line, zerolinecolor: line, rangemode: "tozero"}, ...more});
const config = {responsive: true, displayModeBar: false};
const colours = dark ? ["#5b9bd5", "#f2a65a", "#7bc47f", "#d98cc4"] : ["#1f5fa8", "#b45f06", "#2e7d32", "#8e3b7a"];
const days = told.at_s.map((at) => (at - told.at_s[0]) / 86400 + result.judge_from_day);
Plotly.newPlot("fan", [
  {x: days, y: told.peak, name: "peak of the window", line: {color: ink, width: 1.5, shape: "hv"}},
  ...Object.entries(told.reserve).map(([level, y], at) =>
    ({x: days, y, name: `reserve at ${level}`, line: {color: colours[at % 4], width: 1.5, shape: "hv"}})),
], layout("day", "models"), config);
const scores = Object.values(result.methods), levels = Object.keys(scores[0].coverage);
const bounds = new Set(["static peak", "keep-alive only", "clairvoyant"]);
const held = scores.filter((one) => one.name !== "keep-alive only");
Plotly.newPlot("trade", levels.map((level, at) => ({
  x: held.map((one) => one.slot_hours_held[level]), y: held.map((one) => 100 * one.cold_per_activation[level]),
  text: held.map((one) => one.name), name: `at ${level}`, mode: "markers",
  hovertemplate: "%{text}: %{x:.0f} slot-hours, %{y:.2f}% cold<extra></extra>",
  marker: {size: 10, color: colours[at % 4],
  symbol: held.map((one) => bounds.has(one.name) ? "diamond-open" : at ? "square" : "circle")},
})), layout("slot-hours held", "cold activations, %"), config);
const methods = scores.filter((one) => !bounds.has(one.name));
Plotly.newPlot("calibration", levels.map((level, at) => ({type: "bar", name: `at ${level}`,
  x: methods.map((one) => one.name), y: methods.map((one) => 100 * (one.coverage[level] - Number(level))),
  marker: {color: colours[at % 4]}, hovertemplate: "%{x}: %{y:.1f} points<extra></extra>"})),
  layout("", "points above what was asked", {margin: {l: 60, r: 60, t: 40, b: 110}}), config);
"""
