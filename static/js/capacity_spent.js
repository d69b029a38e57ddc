// Held and used: slot-hours by day on the Capacity page, what was idle of them, and what that cost.
import { el, text } from "./dom.js";
import { UNKNOWN, number } from "./format.js";
import { CONFIG, axes, css, keys, paper } from "./capacity_plots.js";
import { plotly, room } from "./plot.js";

const $ = (id) => document.getElementById(id), box = $("spent").querySelector(".plot"), choice = $("spent-days");
const share = (value, digits = 1) => (value === null ? UNKNOWN : `${(100 * value).toFixed(digits)}%`);
let shown = null, days = 14, turn = 0;

async function load() {
  const mine = ++turn;
  try {
    const answer = await fetch(`/api/v1/capacity/spent?days=${days}`, { headers: { Accept: "application/json" } });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.detail || `the server answered with status ${answer.status}`);
    if (mine !== turn) return;
    shown = body;
    $("spent").classList.remove("blank");
    show();
  } catch (error) {
    if (mine === turn) $("spent").classList.toggle("blank", !shown);
    if (mine === turn) text($("spent-note"), `This could not be read: ${error.message}. ${shown ? "What is shown is old." : "It is tried again soon."}`);
  }
}

function show() {
  const { total, price } = shown;
  text($("spent-from"), total.windows ? `${number(total.used_h)} of ${number(total.held_h)} slot-hours used` : "");
  text($("spent-note"), total.windows ? note(total, price) : "No forecast of these days is over yet: the first one is ten minutes after it was made.");
  $("spent-table").replaceChildren(table());
  draw();
}

function note(total, price) {
  const less = total.static_h > 0 ? 1 - total.held_h / total.static_h : 0, saved = total.static_h > 0 ? ` ${share(Math.abs(less), 0)} ${less < 0 ? "more" : "less"} than holding the greatest peak of these days all the while.` : "";
  const money = price === null ? " With the price of a GPU-hour in the policy it is given in money too." : ` Held: ${number(total.held_cost)}, of which idle: ${number(total.idle_cost)}, at ${price} a GPU-hour.`;
  const after = total.replayed ? ` ${share(total.replayed / total.windows, 0)} of the windows lie before the forecasts were made, and were forecast afterwards.` : "";
  const gpus = total.held_gpu_h === total.held_h ? "" : ` In GPU-hours: ${number(total.used_gpu_h)} of ${number(total.held_gpu_h)} used.`;
  return `As the policy in force would have held; in ${total.short} of ${number(total.windows)} windows of ten minutes more was active than held (${share(total.short / total.windows)}).${saved}${gpus}${money}${after}`;
}

async function draw() {
  const Plotly = await plotly(), colour = keys(), rows = shown.days, x = rows.map((row) => row.day), wide = room(box);
  if (!wide) return;
  const bar = (name, y, fill) => ({ type: "bar", name, x, y, marker: { color: fill, line: { width: 0 } }, hovertemplate: `%{x}: %{y:.1f} slot-hours ${name}<extra></extra>` });
  const data = [
    bar("used", rows.map((row) => row.used_h), colour.used), bar("held and idle", rows.map((row) => row.held_h - row.used_h), colour.idle),
    { type: "scatter", mode: "markers", x, y: rows.map((row) => row.static_h), marker: { symbol: "line-ew-open", size: 18, color: colour.static, line: { width: 2 } }, hovertemplate: "%{x}: %{y:.1f} slot-hours at the day's peak<extra></extra>" },
  ];
  const label = { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--text"), size: 11 } };
  const layout = { ...paper(), barmode: "stack", bargap: 0.35, height: 190, width: wide, margin: { l: 44, r: 10, t: 8, b: 26 }, hoverlabel: label, dragmode: false, xaxis: { ...axes(), type: "category", nticks: wide < 500 ? 4 : 10, tickangle: 0 }, yaxis: { ...axes(), rangemode: "tozero", nticks: 5 } };
  await Plotly.react(box, data, layout, CONFIG);
}

function table() {
  const priced = shown.price !== null, sized = shown.total.held_gpu_h !== shown.total.held_h, heads = ["Used, h", "Held, h", ...(sized ? ["GPU-hours used", "held"] : []), "Day's peak, h", "Too little", "Windows", ...shown.levels.map((level) => `Held at ${share(Number(level), 0)}`), ...(priced ? ["Cost", "of it idle"] : [])];
  const cells = (row) => [number(row.used_h, 1), number(row.held_h, 1), ...(sized ? [number(row.used_gpu_h, 1), number(row.held_gpu_h, 1)] : []), number(row.static_h, 1), number(row.short), number(row.windows), ...row.covered.map((one) => share(one)), ...(priced ? [number(row.held_cost, 2), number(row.idle_cost, 2)] : [])];
  const line = (name, row) => el("tr", {}, el("th", { scope: "row" }, name), cells(row).map((cell) => el("td", { class: "num" }, cell)));
  return el("table", {}, el("caption", {}, "Slot-hours by day (UTC), the newest first."),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Day"), heads.map((head) => el("th", { scope: "col", class: "num" }, head)))),
    el("tbody", {}, [...shown.days].reverse().map((row) => line(row.day, row)), shown.days.length > 1 ? line("together", shown.total) : null));
}

const press = () => choice.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.days) === days)));
choice.addEventListener("click", (event) => {
  const value = Number(event.target.closest("button")?.dataset.days);
  if (!value || value === days) return;
  days = value;
  press();
  load();
});
press();
new ResizeObserver(() => { if (shown) draw(); }).observe($("spent"));
new MutationObserver(() => { if (shown) draw(); }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
setInterval(() => { if (!document.hidden) load(); }, 120_000);
load();
