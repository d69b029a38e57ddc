// Plotly, loaded when first needed, in the page's colours. Every chart has a table twin and the events as marks.
import { el } from "./dom.js";
import { UNKNOWN, bytes, clock, number } from "./format.js";

const HUES = ["#4fa8e0", "#e09a1a", "#1fa883", "#cc79a7", "#9a8cff", "#d8652a", "#7f8c99", "#b8a53a", "#5ec4c4", "#c05a6e", "#7fae4b", "#6c7fd8"];
const MANY = HUES.length;
let loading = null;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = el("script", { src: `${document.documentElement.dataset.static}vendor/plotly-basic.min.js` });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = null; reject(new Error("the chart library did not load")); };
    document.head.append(script);
  });
  return loading;
}

export async function samples(query) {
  const response = await fetch(`/api/v1/samples?${query}`, { headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `status ${response.status}`);
  return body;
}

const when = (s) => new Date(s * 1000);
const scaled = (body) => (v) => (v === null ? null : body.metric === "utilization" || body.metric === "kv_usage" ? v * 100 : body.metric === "memory" ? v / 2 ** 30 : v);
const UNITS = { utilization: "%", kv_usage: "%", memory: "GiB", power: "W", temperature: "°C", generation_tps: "tok/s", prompt_tps: "tok/s", running: "requests", ttft_ms: "ms", itl_ms: "ms" };

function traces(body) {
  const to = scaled(body), unit = UNITS[body.metric] || "";
  if (body.series.length > MANY) return band(body, to);
  return body.series.map((s, i) => ({
    type: "scatter", mode: "lines", name: s.label, x: s.points.map((p) => when(p[0])), y: s.points.map((p) => to(p[1])),
    line: { color: HUES[i % MANY], width: 1.5 }, connectgaps: false, hovertemplate: `%{y:.1f} ${unit} ${s.label}<extra></extra>`,
  }));
}

/** Over a dozen lines nobody reads: the least, the middle and the greatest instead. */
function band(body, to) {
  const at = new Map();
  body.series.forEach((s) => s.points.forEach(([t, v]) => { if (v !== null) at.set(t, [...(at.get(t) || []), to(v)]); }));
  const times = [...at.keys()].sort((a, b) => a - b), x = times.map(when);
  const pick = (q) => times.map((t) => { const v = at.get(t).sort((a, b) => a - b); return v[Math.round(q * (v.length - 1))]; });
  const line = (name, q, extra) => ({ type: "scatter", mode: "lines", name, x, y: pick(q), line: { color: HUES[0], width: q === 0.5 ? 1.5 : 0.5 }, ...extra });
  return [line("least", 0, {}), line("greatest", 1, { fill: "tonexty", fillcolor: `${HUES[0]}30` }), line(`median of ${body.series.length}`, 0.5, {})];
}

function marks(body) {
  const at = (body.marks || []).map((m) => when(m.at));
  return {
    shapes: at.map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: css("--accent"), width: 1, dash: "dot" } })),
    trace: { type: "scatter", mode: "markers", name: "events", x: at, y: at.map(() => 1), yaxis: "y2", showlegend: false, marker: { symbol: "triangle-down", size: 8, color: css("--accent") }, hovertemplate: "%{text}<extra></extra>", text: (body.marks || []).map((m) => m.text.replace(/[<>&]/g, " ")) },
  };
}

function layout(body, shapes, extra) {
  const axis = { gridcolor: css("--line-soft"), zeroline: false, linecolor: css("--line"), tickfont: { size: 11, color: css("--muted") } };
  const whole = ["%"].includes(UNITS[body.metric]);
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: css("--font"), size: 12, color: css("--muted") },
    margin: { l: 46, r: 8, t: 8, b: 26 }, hovermode: "x unified", hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line"), font: { color: css("--text"), size: 12 } },
    legend: { orientation: "h", y: -0.16, x: 0, font: { size: 11 } }, shapes, dragmode: "zoom", uirevision: "keep",
    xaxis: { ...axis, type: "date", tickformat: "%H:%M" }, yaxis: { ...axis, rangemode: "tozero", range: whole ? [0, 102] : undefined, title: { text: UNITS[body.metric] || "", font: { size: 11 }, standoff: 4 }, fixedrange: true },
    yaxis2: { overlaying: "y", range: [0, 1.02], visible: false, fixedrange: true }, ...extra,
  };
}

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

export async function small(box, body) {
  const Plotly = await plotly(), { shapes, trace } = marks(body), base = layout(body, shapes, {});
  await Plotly.react(box, [...traces(body), trace], { ...base, height: 96, showlegend: false, margin: { l: 30, r: 4, t: 4, b: 18 }, yaxis: { ...base.yaxis, title: { text: "" }, nticks: 3 }, xaxis: { ...base.xaxis, nticks: 4 } }, CONFIG);
}

export async function large(box, body, { from, to, onRange }) {
  const Plotly = await plotly(), { shapes, trace } = marks(body), base = layout(body, shapes, {});
  base.xaxis = { ...base.xaxis, range: [when(from), when(to)], tickformat: to - from > 86400 ? "%d %b %H:%M" : to - from < 600 ? "%H:%M:%S" : "%H:%M", uirevision: `${from}` };
  await Plotly.react(box, [...traces(body), trace], { ...base, height: 230, showlegend: body.series.length > 1 }, CONFIG);
  if (box.dataset.wired) return;
  box.dataset.wired = "1";
  box.on("plotly_relayout", (change) => { const a = change["xaxis.range[0]"], b = change["xaxis.range[1]"]; if (a && b) onRange(new Date(a).getTime() / 1000, new Date(b).getTime() / 1000); });
}

export function table(body, rows = 60) {
  const times = [...new Set(body.series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => b - a).slice(0, rows);
  const values = body.series.map((s) => new Map(s.points));
  const show = (v) => (v === null || v === undefined ? UNKNOWN : body.metric === "memory" ? bytes(v) : `${number(scaled(body)(v), 1)} ${UNITS[body.metric] || ""}`);
  return el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Time"), body.series.map((s) => el("th", { class: "num" }, s.label)))),
    el("tbody", {}, times.map((t) => el("tr", {}, el("td", {}, clock(t)), values.map((v) => el("td", { class: "num" }, show(v.get(t))))))));
}
