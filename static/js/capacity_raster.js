// Models by minute: one day (Capacity page) or the last hours (Pool page) as a raster, the most active first, with its table.
import { el, text } from "./dom.js";
import { age, number, plural } from "./format.js";
import { css, keys } from "./capacity_plots.js";

const $ = (id) => document.getElementById(id), DAY = 86400, TOP = 6, FOOT = 22;
const canvas = $("raster").querySelector("canvas"), input = $("raster-day"), lately = $("raster").dataset.query;
const drawn = [canvas, ...document.querySelectorAll("#raster > .legend, #raster > .twin")];
let shown = null, turn = 0, failed = false;

async function load(day) {
  const mine = ++turn;
  try {
    const answer = await fetch(`/api/v1/capacity/activity${lately ? `?${lately}` : day ? `?day=${day}` : ""}`, { headers: { Accept: "application/json" } });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.detail || `the server answered with status ${answer.status}`);
    if (mine !== turn) return;
    [shown, failed] = [body, false];
    show();
  } catch (error) {
    if (mine !== turn) return;
    failed = true;
    if (!shown) bare(true);
    text($("raster-note"), lately
      ? `What was asked lately could not be read: ${error.message}. It is tried again in two minutes${shown ? `; what is shown was read at ${clock(shown.start + shown.until_s)} UTC` : ""}.`
      : `This day could not be read: ${error.message}. ${shown ? `What is shown is ${shown.day}.` : "Choose a day to try again."}`);
  }
}

function show() {
  const { day, first_day: first, last_day: last, rows, models } = shown;
  if (!lately) {
    Object.assign(input, { value: day, min: first, max: last });
    $("raster-before").disabled = day <= first;
    $("raster-after").disabled = day >= last;
  }
  text($("raster-from"), models ? `${plural(models, "model")} active ${when()}, UTC` : "");
  text($("raster-note"), note());
  bare(lately && !models);
  $("raster-table").replaceChildren(table());
  draw();
  if (rows.length < models) text($("raster-from"), `the ${rows.length} most active of ${models} models, UTC`);
}

/** Nothing to draw: the note alone says why. */
function bare(is) {
  for (const part of drawn) part.hidden = is;
}

function note() {
  const unknown = shown.gaps.reduce((sum, [from, until]) => sum + until - from, 0);
  const missing = unknown > 300 ? ` Of ${age(unknown)} nothing is on record, which is not no demand.` : "";
  if (!shown.rows.length) return `No model was active ${when()}.${missing}`;
  return `Kept alive: so long after the last request a model counts as active, now ${age(shown.keep_alive_s)}.${missing}`;
}

const when = () => (lately ? `in the last ${age(shown.span_s)}` : "on this day");
const clock = (at) => new Date(at * 1000).toISOString().slice(11, 16);

function draw() {
  const rows = shown.rows, wide = canvas.parentElement.clientWidth, narrow = wide < 520;
  for (const key of $("raster").querySelectorAll("[data-key]")) key.style.setProperty("--k", keys()[key.dataset.key]);
  const high = rows.length > 30 ? 11 : 16, pen = canvas.getContext("2d");
  const left = margin(pen, rows, high, narrow ? 84 : 180), plot = Math.max(60, wide - left - 10);
  const tall = TOP + Math.max(1, rows.length) * high + FOOT, sharp = window.devicePixelRatio || 1, colour = keys();
  canvas.width = wide * sharp;
  canvas.height = tall * sharp;
  canvas.style.height = `${tall}px`;
  pen.scale(sharp, sharp);
  const x = (seconds) => left + (Math.min(shown.span_s, Math.max(0, seconds)) / shown.span_s) * plot, bottom = TOP + Math.max(1, rows.length) * high;
  const fill = (style, from, until, y, height) => { pen.fillStyle = style; pen.fillRect(x(from), y, Math.max(x(until) - x(from), 0.75), height); };
  for (const [from, until] of shown.gaps) if (until > from) fill(colour.gap, from, until, TOP, bottom - TOP);
  rows.forEach((row, place) => {
    const y = TOP + place * high;
    for (const [from, until] of row.busy) if (until + shown.keep_alive_s > 0) fill(colour.kept, from, Math.min(until + shown.keep_alive_s, shown.until_s), y + 1, high - 2);
    for (const [from, until] of row.busy) if (until > 0) fill(colour.busy, from, until, y + 1, high - 2);
  });
  axis(pen, { x, left, bottom, narrow });
  names(pen, rows, high, left);
}

/** Room for the names, up to `most` pixels. */
function margin(pen, rows, high, most) {
  pen.font = `${Math.min(12, high - 1)}px ${css("--font")}`;
  return Math.min(most, Math.max(44, ...rows.map((row) => pen.measureText(row.name).width + 16)));
}

function axis(pen, { x, left, bottom, narrow }) {
  Object.assign(pen, { font: `11px ${css("--font")}`, fillStyle: css("--muted"), strokeStyle: css("--line"), textAlign: "center", textBaseline: "top", lineWidth: 1 });
  const step = (narrow ? 6 : 3) * 3600, { start, span_s: span } = shown, right = x(span);
  for (let moment = Math.ceil(start / step) * step; moment <= start + span; moment += step) {
    const at = Math.round(x(moment - start)) + 0.5;
    pen.beginPath(); pen.moveTo(at, TOP); pen.lineTo(at, bottom + 4); pen.globalAlpha = 0.4; pen.stroke(); pen.globalAlpha = 1;
    if (at < right - 14) pen.fillText(clock(moment), Math.max(at, left + 14), bottom + 7);
  }
}

function names(pen, rows, high, left) {
  Object.assign(pen, { font: `${Math.min(12, high - 1)}px ${css("--font")}`, fillStyle: css("--text"), textAlign: "right", textBaseline: "middle" });
  rows.forEach((row, place) => pen.fillText(fitting(pen, row.name, left - 12), left - 6, TOP + (place + 0.5) * high));
}

function fitting(pen, name, most) {
  let cut = name;
  while (cut.length > 1 && pen.measureText(cut).width > most) cut = `${cut.slice(0, cut.endsWith("…") ? -2 : -1)}…`;
  return cut;
}

function table() {
  const heads = ["Requests", "Times active", "Busy", "Active", lately ? "Of the time" : "Of the day"];
  const cells = (row) => [number(row.requests), number(row.activations), age(row.busy_s), age(row.active_s), `${((100 * row.active_s) / Math.max(1, shown.until_s)).toFixed(1)}%`];
  return el("table", {}, el("caption", {}, `Models active ${lately ? when() : `on ${shown.day} (UTC)`}, the most active first.`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Model"), heads.map((head) => el("th", { scope: "col", class: "num" }, head)))),
    el("tbody", {}, shown.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), cells(row).map((cell) => el("td", { class: "num" }, cell))))));
}

function step(days) {
  if (shown) load(new Date(Date.parse(`${shown.day}T00:00:00Z`) + days * DAY * 1000).toISOString().slice(0, 10));
}

$("raster-before")?.addEventListener("click", () => step(-1));
$("raster-after")?.addEventListener("click", () => step(1));
input?.addEventListener("change", () => { if (input.value) load(input.value); });
new ResizeObserver(() => { if (shown) draw(); }).observe($("raster"));
new MutationObserver(() => { if (shown) draw(); }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => { if (shown) draw(); });
setInterval(() => { if (!document.hidden && (failed || lately || shown?.day === shown?.last_day)) load(shown?.day); }, 120_000);
load();
