// The Capacity page: asks GET /api/v1/capacity, draws the fan, answers what-if questions from the curves that came with it.
import { el, text } from "./dom.js";
import { UNKNOWN, age, clock, number, plural } from "./format.js";
import { drawFan, drawReliability, keys } from "./capacity_plots.js";
import { bySize, ofSizes } from "./capacity_sizes.js";
import { whatIf } from "./capacity_whatif.js";
import { save, table } from "./charttable.js";

const EVERY_MS = 30_000, NAMES = { 600: "10 min", 3600: "1 h", 86400: "24 h" };
const $ = (id) => document.getElementById(id);
const view = { horizon: 600, hours: 24, ...Object.fromEntries([...new URLSearchParams(location.search)].map(([key, value]) => [key, Number(value)]).filter(([, value]) => value > 0)) };
let shown = null, turn = 0;

async function load() {
  const mine = ++turn;
  try {
    const answer = await fetch(`/api/v1/capacity?horizon_s=${view.horizon}&hours=${view.hours}`, { headers: { Accept: "application/json" } });
    if (answer.status === 401) throw new Error("you are signed out; reload the page");
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.detail || `the server answered with status ${answer.status}`);
    if (mine !== turn) return;
    shown = body;
    show();
    text($("state"), `as of ${clock(body.now)}`);
    unread(null);
  } catch (error) {
    if (mine === turn) unread(error instanceof TypeError ? "the server does not answer" : error.message);
  }
}

/** Says why nothing, or nothing new, could be read; what was never read is not shown as empty. */
function unread(why) {
  $("unread").hidden = why === null;
  $("main").classList.toggle("unread", why !== null && !shown);
  if (why === null) return;
  text($("state"), shown ? `not renewed since ${clock(shown.now)}` : "not read");
  text($("unread").querySelector("span"), `${why}. ${shown ? "What is shown is old. " : ""}Nothing was changed. It is asked again each ${EVERY_MS / 1000} s.`);
}

function show() {
  figures();
  draw();
  bySize(shown);
  calibration();
  how();
  whatIf(shown);
}

/** What is to be held now, by the policy; null where it is not known. */
const held = () => shown.held?.slots ?? null;

const sizes = () => ofSizes(shown.held.sizes);

function gpus() {
  const { gpus: all, nodes, node_gpus: each, assumed, sizes: every } = shown.held, less = every.filter((one) => one.there < one.slots && each);
  return [
    `By size: ${sizes() || "each of one GPU"}; ${plural(all, "GPU")} in all${nodes ? `, on ${plural(nodes, "node")} of ${each} at least` : ""}.`,
    assumed ? `Of ${plural(assumed, "model")} no slot is known to be large enough, as of an imported history: one GPU is taken to do.` : "",
    less.length ? `The pool has ${less.map((one) => `${one.there} of ${one.slots} with ${plural(one.gpus, "GPU")}`).join(", ")}.` : "",
  ].join(" ").trim();
}

function figures() {
  const { newest, standing, keep_alive_s: keep, now, outage_since: outage } = shown, soon = newest.find((one) => one.horizon_s === 600);
  const mine = standing.find((one) => one.keep_alive_s === keep);
  text($("k-active"), number(soon?.active ?? null));
  text($("k-active-sub"), soon ? `of ${soon.models} known, ${age(now - soon.at)} ago` : "no forecast yet");
  text($("k-hold"), shown.held ? plural(held(), "slot") : UNKNOWN);
  text($("k-hold-sub"), shown.held ? sizes() || shown.held.reason.split(",")[0] : "no forecast: what is held stays held");
  text($("held-why"), shown.held ? `To hold now: ${plural(held(), "slot")}, ${shown.held.reason}. ${gpus()}` : "What to hold now is not known, since there is no forecast of the last half hour: what is held is held on.");
  text($("k-next"), soon ? number(soon.values[soon.values.length - 1]) : UNKNOWN);
  text($("k-next-sub"), soon ? `99% sure; ${soon.values[soon.values.length - 2]} at 95%` : "a forecast is made every 10 min");
  text($("k-expected"), mine ? number(mine.expected, 1) : UNKNOWN);
  text($("k-expected-sub"), mine ? `Aegaeon's formula: ${number(mine.aegaeon, 1)}` : " ");
  text($("k-slots"), number(shown.slots));
  text($("k-slots-sub"), "partitions, one model each");
  $("outage").hidden = outage === null;
  if (outage !== null) text($("outage"), `Nothing has been on record for ${age(now - outage)}: no gateway runs. What was active then is taken to be active still; no data is not no demand.`);
}

function draw() {
  const rows = shown.forecasts, drawn = rows.some((one) => one.replayed);
  document.querySelectorAll("[data-key]").forEach((key) => key.style.setProperty("--k", keys()[key.dataset.key]));
  $("slots-key").hidden = !shown.slots;
  $("hold-key").hidden = held() === null;
  drawFan($("fan").querySelector(".plot"), shown, view.hours, held());
  text($("fan-note"), !rows.length ? "No forecast in this range yet." : `Of each moment: what was forecast for the most active at once in the ${NAMES[view.horizon]} after it.${drawn ? " What lies before Forebay ran was forecast afterwards, each from what was on record by then." : ""}`);
  const box = $("table");
  box.replaceChildren(table("Active models", picture()));
}

/** As the table and its file take it. */
function picture() {
  const lines = [["active", (row) => row.active], ["peak", (row) => row.peak], ...shown.levels.map((level, i) => [`forecast, ${level * 100}%`, (row) => row.values[i]])];
  return { unit: "", bands: [], lines: lines.map(([label, of]) => ({ label, points: shown.forecasts.map((row) => [row.at, of(row)]) })) };
}

function calibration() {
  const { windows, apart, covered, days, replayed } = shown.calibration;
  text($("held-from"), windows ? `${plural(windows, "window")} of ${NAMES[view.horizon]} in ${number(days)} ${days === 1 ? "day" : "days"}${apart < windows ? `, which overlap: as telling as ${number(apart)}` : ""}${replayed ? `, ${replayed} forecast afterwards` : ""}` : "no window is over yet");
  $("held").replaceChildren(...shown.levels.map((level, i) => {
    const share = covered[i], off = share !== null && level >= 0.9 && share < level - 2 * Math.sqrt((level * (1 - level)) / Math.max(apart, 1)) - 0.01;
    return el("tr", {}, el("th", { scope: "row" }, `${number(level * 100)}%`), el("td", { class: `num${off ? " off" : ""}`, title: off ? "clearly less than forecast" : null }, share === null ? UNKNOWN : `${(share * 100).toFixed(1)}%${off ? " too few" : ""}`), el("td", { class: "num" }, windows));
  }));
  drawReliability($("reliability"), shown);
}

function how() {
  const { newest, recorded_s: recorded, recorded_since: since } = shown, methods = [...new Set(newest.flatMap((one) => Object.keys(one.shares)))];
  text($("how"), newest.length ? `${newest[0].method[0].toUpperCase()}${newest[0].method.slice(1)}, from ${age(recorded)} on record since ${new Date(since * 1000).toISOString().slice(0, 10)}.${recorded < 7 * 86400 ? " With less than a week of it, forecasts are wider than they will be." : ""}` : "No forecast has been made yet: the control worker makes one every ten minutes.");
  $("shares").replaceChildren(...methods.map((name) => el("tr", {}, el("th", { scope: "row" }, name), ...[600, 3600, 86400].map((horizon) => { const share = newest.find((one) => one.horizon_s === horizon)?.shares[name]; return el("td", { class: "num" }, share === undefined ? UNKNOWN : `${Math.round(share * 100)}%`); }))));
}

function choose(group, name) {
  const press = () => group.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset[name]) === view[name])));
  group.addEventListener("click", (event) => {
    const value = Number(event.target.closest("button")?.dataset[name]);
    if (!value || value === view[name]) return;
    view[name] = value;
    press();
    history.replaceState(null, "", `?horizon=${view.horizon}&hours=${view.hours}`);
    load();
  });
  press();
}

choose($("horizon"), "horizon");
choose($("past"), "hours");
$("csv").addEventListener("click", () => { if (shown) save("active models", picture()); });
new ResizeObserver(() => { if (shown) { draw(); drawReliability($("reliability"), shown); } }).observe($("fan"));
new MutationObserver(() => { if (shown) show(); }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden && shown && Date.now() / 1000 - shown.now > 30) load(); });
load();
