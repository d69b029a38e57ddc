// The stacked bars of the Cost page, in the page's colours.
import { onAxis } from "./format.js";
import { hue, plotly, room } from "./plot.js";

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** By what they stand for; `hue` gives those of groups in their order. */
export const colours = () => ({ active: hue(2), reserved: hue(1), idle: css("--faint"), rest: css("--muted"), nobody: css("--faint"), hue });

/** `stack`: {name, rest, colour, points}, the lowest first. A step without a point is one in which nothing is known. */
export async function drawStack(box, stack, { since, until, step_s: step }) {
  const Plotly = await plotly(), quiet = { size: 11, color: css("--muted") }, wide = room(box);
  if (!wide) return; // the page draws it when it has a place
  const axis = { gridcolor: css("--line-soft"), zeroline: false, linecolor: css("--line"), tickfont: quiet, fixedrange: true };
  const data = stack.map(({ rest, colour, points }) => ({
    type: "bar", x: points.map(([at]) => onAxis(at + step / 2)), y: points.map(([, v]) => v), width: step * 1000 * 0.86, hoverinfo: "skip",
    marker: rest ? { color: css("--panel"), line: { width: 0 }, pattern: { shape: "/", fgcolor: colour, bgcolor: css("--panel"), size: 5, solidity: 0.4 } } : { color: colour, line: { width: 0 } },
  }));
  if (!data.length) data.push({ type: "bar", x: [], y: [] });
  const range = [onAxis(Math.floor(since / step) * step), onAxis(Math.ceil(Math.max(until, since + step) / step) * step)];
  await Plotly.react(box, data, {
    barmode: "stack", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: css("--font"), size: 11, color: css("--muted") }, showlegend: false, hovermode: false, dragmode: false,
    height: wide < 500 ? 220 : 300, width: wide, margin: { l: 48, r: 10, t: 10, b: 26 },
    xaxis: { ...axis, type: "date", range, tickformat: step < 86400 ? "%d %b %H:%M" : "%d %b", nticks: Math.max(2, Math.floor(wide / 110)), showgrid: false }, yaxis: { ...axis, rangemode: "tozero", nticks: 6, separatethousands: true },
  }, CONFIG);
}
