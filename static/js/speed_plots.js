// What was measured as dots, and the fitted curves as lines, in the page's colours.
import { el } from "./dom.js";
import { number } from "./format.js";
import { hue, plotly, room } from "./plot.js";

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const LOW = 0.7, HIGH = 1.4; // of room beside the outermost points

const step = (law, n, length) => Math.max(law.floor_ms, law.a + law.b * n + law.c * n * length);
const itl = (law, batch, context) => law.o + batch * (law.u + law.v * context);

/** Tokens a second by the size of a step, and the smallest that fills the GPU. */
export async function drawPrefill(figure, { prefill, knee }) {
  const alone = prefill.points.filter((p) => p.batch === 1), together = prefill.points.filter((p) => p.batch > 1);
  const sizes = spread(prefill.points.map((p) => p.tokens)), dots = (points, i) => marks(points.map((p) => [p.tokens, (1000 * p.tokens) / p.step_ms]), i);
  const data = [lines(sizes.map((n) => [n, (1000 * n) / step(prefill, n, alone.length ? n : prefill.points[0].context)]), 0), dots(alone, 0), dots(together, 1)];
  const shapes = [{ type: "line", x0: knee.tokens, x1: knee.tokens, yref: "paper", y0: 0, y1: 1, line: { color: css("--ok"), width: 1.4, dash: "5px,3px" } }];
  await draw(figure, data, shapes, sizes);
  legend(figure, [[hue(0), "one prompt, and the fitted curve", ""], ...(together.length ? [[hue(1), "several prompts together", ""]] : []), [css("--ok"), `full at ${number(knee.tokens)} tokens`, "dashed"]]);
  twin(figure, ["Tokens", "Prompts", "ms", "Fitted, ms", "Error"], prefill.points.map((p) => [number(p.tokens), p.batch, p.step_ms.toFixed(1), p.law_ms.toFixed(1), off(p)]));
}

/** Milliseconds from token to token by the number of sequences, a line a length of context. */
export async function drawDecode(figure, { decode }) {
  const asked = [...new Set(decode.points.filter((p) => p.concurrency === 1).map((p) => p.context))].sort((a, b) => a - b);
  const near = (context) => asked.reduce((best, one) => (Math.abs(Math.log(one / context)) < Math.abs(Math.log(best / context)) ? one : best), asked[0] ?? context);
  const groups = new Map();
  decode.points.forEach((p) => { const key = near(p.context); groups.set(key, [...(groups.get(key) ?? []), p]); });
  const sizes = spread(decode.points.map((p) => p.concurrency));
  const data = [...groups].flatMap(([context, points], i) => [lines(sizes.map((n) => [n, itl(decode, n, context)]), i), marks(points.map((p) => [p.concurrency, p.itl_ms]), i)]);
  await draw(figure, data, [], sizes);
  legend(figure, [...groups.keys()].map((context, i) => [hue(i), `context of about ${number(context)}`, ""]));
  twin(figure, ["Sequences", "Context", "ms", "Fitted, ms", "Error"], decode.points.map((p) => [p.concurrency, number(p.context), p.itl_ms.toFixed(2), p.law_ms.toFixed(2), off(p)]));
}

function spread(values) {
  const low = Math.min(...values) * LOW, high = Math.max(...values) * HIGH;
  return Array.from({ length: 60 }, (_, i) => low * (high / low) ** (i / 59));
}

const lines = (points, i) => ({ type: "scatter", mode: "lines", x: points.map(([x]) => x), y: points.map(([, y]) => y), line: { color: hue(i), width: 1.4 }, hoverinfo: "skip" });
const marks = (points, i) => ({ type: "scatter", mode: "markers", x: points.map(([x]) => x), y: points.map(([, y]) => y), marker: { color: hue(i), size: 7, symbol: i % 2 ? "square" : "circle" }, hoverinfo: "skip" });
const off = (p) => (p.left_out ? "left out" : `${p.error >= 0 ? "+" : ""}${(100 * p.error).toFixed(1)}%`);

const again = new WeakMap(); // how to draw the figure of a place that is another one than it was drawn for
const places = new ResizeObserver((entries) => entries.forEach(({ target }) => { if (room(target) && room(target) !== Number(target.dataset.width)) again.get(target)(); }));

async function draw(figure, data, shapes, sizes) {
  const Plotly = await plotly(), box = figure.querySelector(".plot"), quiet = { size: 11, color: css("--muted") };
  const axis = { gridcolor: css("--line-soft"), zeroline: false, linecolor: css("--line"), tickfont: quiet, fixedrange: true };
  const whole = Array.from({ length: 24 }, (_, i) => 2 ** i).filter((n) => n >= sizes[0] && n <= sizes[sizes.length - 1]), wide = room(box);
  again.set(box, () => draw(figure, data, shapes, sizes));
  places.observe(box);
  box.dataset.width = wide;
  if (!wide) return;
  const every = Math.ceil(whole.length / Math.max(3, Math.floor(wide / 62)));
  const layout = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: css("--font"), ...quiet }, showlegend: false, hovermode: false, dragmode: false, shapes, width: wide, height: 240, margin: { l: 50, r: 10, t: 10, b: 26 },
    xaxis: { ...axis, type: "log", range: [Math.log10(sizes[0]), Math.log10(sizes[sizes.length - 1])], tickvals: whole.filter((_, i) => i % every === 0), ticktext: whole.filter((_, i) => i % every === 0).map((n) => number(n)) }, yaxis: { ...axis, rangemode: "tozero", nticks: 6 } };
  await Plotly.react(box, data, layout, CONFIG);
}

function legend(figure, entries) {
  figure.querySelector(".legend").replaceChildren(...entries.map(([colour, label, kind]) => el("li", {}, el("i", { class: `key ${kind}`, style: { "--k": colour } }), label)));
}

function twin(figure, heads, rows) {
  const head = el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: "num" }, name))));
  figure.querySelector(".twin .scroll").replaceChildren(el("table", {}, head, el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", { class: "num" }, String(cell))))))));
}
