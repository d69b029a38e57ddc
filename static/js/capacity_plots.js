// The two figures of the Capacity page, in the page's colours.
import { onAxis } from "./format.js";
import { hue, plotly, room } from "./plot.js";

export const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Colours by what they stand for. */
export const keys = () => ({ used: hue(0), idle: css("--line"), static: hue(1), busy: hue(0), kept: `${hue(0)}55`, gap: css("--line-soft"), active: css("--text"), peak: hue(3), q95: hue(0), q99: hue(1), fan: hue(0), slots: css("--bad"), hold: css("--ok") });

export function axes() {
  const quiet = { size: 11, color: css("--muted") };
  return { gridcolor: css("--line-soft"), zeroline: false, linecolor: css("--line"), tickfont: quiet, fixedrange: true };
}

export const paper = () => ({ paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: css("--font"), size: 11, color: css("--muted") }, showlegend: false });
const at = (levels, level) => levels.findIndex((one) => Math.abs(one - level) < 1e-9);
const line = (points, colour, more = {}) => ({ type: "scatter", mode: "lines", x: points.map(([x]) => onAxis(x)), y: points.map(([, y]) => y), line: { color: colour, width: 1.4, ...more }, hoverinfo: "skip", connectgaps: false });

/** The past as lines; the time to come as a fan: the most active at once until then, by quantiles. */
export async function drawFan(box, { forecasts, newest, levels, slots, now }, hours, hold) {
  const Plotly = await plotly(), colour = keys(), of = (level) => forecasts.map((row) => [row.at, row.values[at(levels, level)]]);
  const data = [
    line(of(0.99), colour.q99, { shape: "hv" }), line(of(0.95), colour.q95, { shape: "hv" }),
    line(forecasts.map((row) => [row.at, row.peak]), colour.peak, { shape: "hv", width: 1, dash: "2px,2px" }), line(forecasts.map((row) => [row.at, row.active]), colour.active, { width: 1.8 }),
    ...fan(newest, levels, colour),
  ];
  const ahead = Math.max(now, ...newest.map((one) => one.at + one.horizon_s)), shapes = [{ type: "line", x0: onAxis(now), x1: onAxis(now), yref: "paper", y0: 0, y1: 1, line: { color: css("--line"), width: 1 } }];
  const top = Math.max(1, hold ?? 0, ...forecasts.flatMap((row) => [row.active ?? 0, row.peak ?? 0, ...row.values]), ...newest.flatMap((one) => one.values));
  if (slots && slots <= top * 3) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: slots, y1: slots, line: { color: colour.slots, width: 1.2, dash: "6px,4px" } });
  if (hold !== null) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: hold, y1: hold, line: { color: colour.hold, width: 1.2, dash: "4px,3px" } });
  const wide = room(box);
  if (!wide) return; // the page draws it when it has a place
  const layout = { ...paper(), shapes, height: wide < 500 ? 240 : 320, width: wide, margin: { l: 44, r: 10, t: 10, b: 38 }, hovermode: false, dragmode: false, xaxis: { ...axes(), type: "date", range: [onAxis(now - hours * 3600), onAxis(ahead)] }, yaxis: { ...axes(), rangemode: "tozero", nticks: 6 } };
  await Plotly.react(box, data, layout, CONFIG);
}

function fan(newest, levels, colour) {
  const rows = [...newest].sort((a, b) => a.horizon_s - b.horizon_s).filter((one) => one.active !== null);
  if (!rows.length) return [];
  const from = rows[0].at, points = (level) => [[from, rows[0].active], ...rows.map((one) => [one.at + one.horizon_s, one.values[at(levels, level)]])];
  const band = (low, high, alpha) => { const bottom = points(low), top = points(high); return { type: "scatter", mode: "lines", x: [...bottom, ...top.reverse()].map(([x]) => onAxis(x)), y: [...bottom, ...top].map(([, y]) => y), fill: "toself", fillcolor: `${colour.fan}${alpha}`, line: { width: 0 }, hoverinfo: "skip" }; };
  return [band(0.05, 0.95, "33"), band(0.25, 0.75, "4d"), line(points(0.5), colour.fan, { dash: "4px,3px" }), line(points(0.99), colour.q99)];
}

/** Share that held against the level of the forecast; on the diagonal they are the same. */
export async function drawReliability(box, { levels, calibration }) {
  const Plotly = await plotly(), points = levels.map((level, i) => [level, calibration.covered[i]]).filter(([, share]) => share !== null);
  const data = [
    { type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], line: { color: css("--line"), width: 1, dash: "3px,3px" }, hoverinfo: "skip" },
    { type: "scatter", mode: "lines+markers", x: points.map(([x]) => x), y: points.map(([, y]) => y), line: { color: hue(0), width: 1.5 }, marker: { size: 7, color: hue(0) }, hoverinfo: "skip" },
  ];
  const width = room(box), share = { ...axes(), range: [-0.03, 1.03], tickformat: ".0%", nticks: 5 };
  if (width) await Plotly.react(box, data, { ...paper(), height: 190, width, margin: { l: 44, r: 10, t: 8, b: 34 }, hovermode: false, dragmode: false, xaxis: { ...share, title: { text: "forecast level", standoff: 4 } }, yaxis: share }, CONFIG);
}
