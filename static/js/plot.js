// Plotly, loaded when first needed, in the page's colours: lines, a band, or a heat map, with events as marks.
import { el } from "./dom.js";
import { onAxis } from "./format.js";
import { at as ramp } from "./ramp.js";

// Six hues that colour-blind eyes tell apart, at least 3:1 on the panel; the second six are dashed.
const HUES = { dark: ["#4fa8e0", "#e6a532", "#27b58c", "#d489b3", "#a99cff", "#e0724a"], light: ["#0a6fb5", "#9a6100", "#0b7d5c", "#a8447f", "#6b4fd0", "#b5431a"] };
const DASHES = ["solid", "4px,3px"];
export const theme = () => (document.documentElement.dataset.theme === "light" ? "light" : "dark");
export const hue = (i) => HUES[theme()][i % 6];
export const dash = (i) => DASHES[Math.floor(i / 6) % 2];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
const MARGIN = { l: 44, r: 10, t: 10, b: 22 };
const coarse = matchMedia("(pointer: coarse)"); // a finger scrolls the page; it does not draw a range
const LEAST_PX = 80;
let loading = null, queue = Promise.resolve();

export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = el("script", { src: `${document.documentElement.dataset.static}vendor/plotly-basic.min.js` });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = null; script.remove(); reject(new Error("the chart library did not load")); };
    document.head.append(script);
  });
  return loading;
}

/** The width of a chart's place, px. 0: it is not laid out, as inside of what is folded or hidden, and Plotly would draw ten pixels
 *  into it; whoever gets 0 draws once a ResizeObserver tells of the place. */
export const room = (box) => (box.clientWidth < LEAST_PX ? 0 : box.clientWidth);

/** Draws `picture` into `box`; {heat, only, slo, from, to, height, bare}: `only` is one line's place, `bare` a thumbnail. The
 *  milliseconds that it took. */
export async function plot(box, picture, how) {
  const Plotly = await plotly();
  await turn();
  const began = performance.now();
  const data = how.heat ? [nothing()] : [...picture.bands.flatMap(band), ...picture.lines.map((l, i) => line(l, i, how.only))];
  if (!how.bare) data.push(ticks(picture.marks));
  await Plotly.react(box, data, layout(picture, how), CONFIG);
  return performance.now() - began;
}

/** One drawing after another, with room between them for clicks and scrolling. */
function turn() {
  const mine = queue.then(() => new Promise((next) => setTimeout(next)));
  queue = mine;
  return mine;
}

function line({ points }, i, only) {
  const alone = points.map(([, v], n) => (v !== null && (points[n - 1]?.[1] ?? null) === null && (points[n + 1]?.[1] ?? null) === null ? 4 : 0));
  const lonely = alone.some(Boolean);
  return {
    type: "scatter", mode: lonely ? "lines+markers" : "lines", x: points.map(([at]) => onAxis(at)), y: points.map(([, v]) => v), connectgaps: false, hoverinfo: "skip",
    visible: only === undefined || only === null || only === i, line: { color: hue(i), width: 1.5, dash: dash(i) }, ...(lonely ? { marker: { size: alone, color: hue(i), line: { width: 0 } } } : {}),
  };
}

/** Eight of ten as a filled shape, one polygon a stretch without a gap; the middle as a line. */
function band({ points }, i) {
  const shape = { x: [], y: [] };
  let run = [];
  const close = () => {
    if (run.length) { shape.x.push(...run.map(([at]) => onAxis(at)), ...run.map(([at]) => onAxis(at)).reverse(), null); shape.y.push(...run.map((p) => p[1]), ...run.map((p) => p[3]).reverse(), null); }
    run = [];
  };
  points.forEach((point) => { if (point[2] === null) close(); else run.push(point); });
  close();
  return [
    { type: "scatter", mode: "lines", ...shape, fill: "toself", fillcolor: `${hue(i)}3d`, line: { width: 0 }, hoverinfo: "skip" },
    line({ points: points.map(([at, , middle]) => [at, middle]) }, i),
  ];
}

/** A row a line, a pixel a step, as one image: Plotly draws a heat map cell by cell, which takes three times as long. */
function heat({ lines, unit, step }) {
  const tall = lines.length > 24 ? 1 : 8, wide = lines[0].points.length, canvas = el("canvas", { width: wide, height: lines.length * tall });
  const pen = canvas.getContext("2d"), image = pen.createImageData(wide, canvas.height), inks = new Uint32Array(image.data.buffer);
  const colours = Array.from({ length: 256 }, (_, n) => { const [r, g, b] = ramp(n / 255); return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; });
  const top = topOf(lines, unit);
  lines.forEach(({ points }, row) => points.forEach(([, v], x) => {
    if (v === null) return; // transparent, as what is unknown
    const ink = colours[Math.min(255, Math.max(0, Math.round((v / top) * 255)))];
    for (let y = 0; y < Math.max(1, tall - 1); y += 1) inks[(row * tall + y) * wide + x] = ink;
  }));
  pen.putImageData(image, 0, 0);
  const from = lines[0].points[0][0];
  return { source: canvas.toDataURL(), xref: "x", yref: "y", x: onAxis(from), sizex: wide * step * 1000, y: -0.5, sizey: lines.length, xanchor: "left", yanchor: "top", sizing: "stretch", layer: "above" };
}

/** What the brightest colour stands for. */
export const topOf = (lines, unit) => (unit === "%" ? 100 : lines.reduce((top, l) => l.points.reduce((most, [, v]) => (v > most ? v : most), top), 0) || 1);

const nothing = () => ({ type: "scatter", x: [], y: [], hoverinfo: "skip" }); // an axis without a trace is not drawn

/** Events as triangles; what went wrong as squares in another colour. */
function ticks(marks) {
  const bad = marks.map(isTrouble), accent = css("--accent"), warn = css("--bad");
  return { type: "scatter", mode: "markers", x: marks.map((m) => onAxis(m.at)), y: marks.map(() => 1), yaxis: "y2", hoverinfo: "skip", cliponaxis: false, marker: { symbol: bad.map((b) => (b ? "square" : "triangle-down")), size: 7, color: bad.map((b) => (b ? warn : accent)), line: { width: 0 } } };
}

export const isTrouble = ({ kind }) => /silent|lost|gone|below-bar|crash|fail|expired|exited|firing|brake|unhealthy/.test(kind);

function layout(picture, how) {
  const quiet = { size: 11, color: css("--muted") };
  const axis = { gridcolor: css("--line-soft"), zeroline: false, linecolor: css("--line"), tickfont: quiet };
  const shapes = how.bare ? [] : picture.marks.map((m) => ({ type: "line", x0: onAxis(m.at), x1: onAxis(m.at), yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: css(isTrouble(m) ? "--bad" : "--accent"), width: 1, dash: "1px,3px" } }));
  if (how.slo) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: how.slo, y1: how.slo, line: { color: css("--bad"), width: 1.2, dash: "6px,4px" } });
  return {
    images: how.heat && picture.lines[0]?.points.length ? [heat(picture)] : [],
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: how.heat ? css("--unknown") : "rgba(0,0,0,0)", font: { family: css("--font"), size: 11, color: css("--muted") }, showlegend: false,
    margin: how.bare ? { l: 30, r: 4, t: 6, b: 18 } : MARGIN, height: how.height, width: how.width, hovermode: false, dragmode: coarse.matches || how.bare ? false : "zoom", shapes,
    xaxis: { ...axis, type: "date", range: [onAxis(how.from), onAxis(how.to)], tickformat: timeFormat(how.to - how.from), nticks: Math.max(2, Math.floor((how.width || 600) / 84)), fixedrange: how.bare, showgrid: !how.heat && how.known !== false },
    yaxis: { ...axis, showticklabels: how.known !== false, showgrid: how.known !== false, ...(how.heat ? rows(picture) : heights(picture, how)), fixedrange: true },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  };
}

function rows({ lines }) {
  const every = Math.ceil(lines.length / 16);
  const shown = lines.map((l, n) => [n, l.label.replace(/^\D+(?=\d)/, "")]).filter(([n]) => n % every === 0);
  return { autorange: false, range: [lines.length - 0.5, -0.5], tickvals: shown.map(([n]) => n), ticktext: shown.map(([, label]) => label), showgrid: false };
}

/** From zero to what is known, or to the objective where that is near: a line at the very top is no chart. */
function heights({ lines, bands, unit }, { slo, only, bare }) {
  if (unit === "%") return { range: [0, 103], tickvals: bare ? [0, 100] : [0, 25, 50, 75, 100] };
  const drawn = only === undefined || only === null ? lines : lines.filter((_, i) => i === only);
  let top = 0;
  drawn.forEach((l) => l.points.forEach(([, v]) => { if (v > top) top = v; }));
  bands.forEach((b) => b.points.forEach((p) => { if (p[3] > top) top = p[3]; }));
  if (slo && slo > top) top = slo;
  return { range: [0, (top || 1) * 1.08], nticks: bare ? 3 : 5, tickformat: top >= 10000 || (bare && top >= 1000) ? "~s" : "", separatethousands: true };
}

const timeFormat = (span) => (span <= 600 ? "%H:%M:%S" : span <= 129600 ? "%H:%M" : span <= 864000 ? "%a %d %H:%M" : "%d %b");
