// The Cost page: asks GET /api/v1/usage and shows whose the GPUs' time was, in money where prices are known.
import { el, text } from "./dom.js";
import { UNKNOWN, age, moment, number, percent } from "./format.js";
import { colours, drawStack } from "./cost_plot.js";

const EVERY_MS = 60_000, DAY_S = 86400, SHARES = ["active", "reserved", "idle"];
const UNNAMED = { team: "nobody's", model: "no deployment", key: "without a key", node: "no node", share: "" };
const HEADS = { team: "Team", model: "Model", key: "Key", node: "Node", share: "Share" };
const $ = (id) => document.getElementById(id), url = new URLSearchParams(location.search);
const view = { by: HEADS[url.get("by")] ? url.get("by") : "team", measure: url.get("measure"), range: Number(url.get("range")) || 7 };
let shown = null, turn = 0;

const query = () => {
  const until = Math.floor(Date.now() / 1000), said = (at) => encodeURIComponent(new Date(at * 1000).toISOString());
  return `since=${said(until - view.range * DAY_S)}&until=${said(until)}`;
};

async function load() {
  const mine = ++turn, asked = query();
  try {
    const answer = await fetch(`/api/v1/usage?by=${view.by}&${asked}`, { headers: { Accept: "application/json" } });
    if (answer.status === 401) throw new Error("you are signed out; reload the page");
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.detail || `the server answered with status ${answer.status}`);
    if (mine !== turn) return;
    shown = body;
    $("csv").href = `/api/v1/usage/export?${asked}`;
    show();
    text($("state"), `counted ${age(Date.now() / 1000 - body.counted_at)} ago`);
  } catch (error) {
    if (mine === turn) text($("state"), `${error.message}; ${shown ? "what is shown is old" : "tried again soon"}`);
  }
}

/** Money to the cent, small sums to three digits. */
export function money(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value === 0 || value >= 0.995) return value.toLocaleString("en", { minimumFractionDigits: value >= 1000 ? 0 : 2, maximumFractionDigits: value >= 1000 ? 0 : 2 });
  return Number(value.toPrecision(2)).toLocaleString("en", { maximumFractionDigits: 8 });
}

const tokens = (count) => (count >= 1e6 ? `${(count / 1e6).toLocaleString("en", { minimumFractionDigits: count >= 1e8 ? 0 : 1, maximumFractionDigits: count >= 1e8 ? 0 : 1 })}M` : number(count));
const hours = (seconds) => (seconds / 3600).toLocaleString("en", { maximumFractionDigits: seconds >= 360_000 ? 0 : 2 });
const whole = (times) => SHARES.reduce((sum, share) => sum + times[share], 0);
const named = (name) => name ?? UNNAMED[shown.by];
/** What the chart shows: money where any is known and nothing else was asked for. */
const measure = () => view.measure ?? (shown.total.cost === null ? "time" : "money");

function show() {
  figures();
  press($("measure"), "measure", measure());
  text($("by-head"), HEADS[shown.by]);
  text($("groups-sub"), shown.final_until ? `final until ${moment(shown.final_until, { dateStyle: "medium", timeStyle: "short" })} UTC` : "");
  $("groups").replaceChildren(...shown.groups.map((group) => row(named(group.name), group)));
  $("total").replaceChildren(row("Total", shown.total));
  draw();
}

function figures() {
  const { total, currency } = shown, time = whole(total.gpu_s);
  text($("k-cost"), money(total.cost));
  text($("k-cost-sub"), total.unpriced_gpu_s > 0 ? `${currency}; ${hours(total.unpriced_gpu_s)} h unpriced` : `${currency} for ${hours(time)} GPU-hours`);
  SHARES.forEach((share) => {
    text($(`k-${share}`), percent(time ? total.gpu_s[share] / time : null));
    text($(`k-${share}-sub`), `${hours(total.gpu_s[share])} GPU-hours${total.costs[share] === null || total.cost === null ? "" : `, ${money(total.costs[share])} ${currency}`}`);
  });
  text($("k-tokens"), money(total.per_million.all));
  text($("k-tokens-sub"), total.per_million.active === null ? "needs tokens and a price" : `${currency}; ${money(total.per_million.active)} of active time`);
}

function row(name, group) {
  const time = whole(group.gpu_s), per = group.per_million, ink = colours(), said = SHARES.map((share) => `${share} ${percent(time ? group.gpu_s[share] / time : 0)}`).join(", ");
  const bar = el("span", { class: "shares", role: "img", "aria-label": said, title: said }, SHARES.map((share) => el("i", { style: { width: `${time ? (100 * group.gpu_s[share]) / time : 0}%`, background: ink[share] } })));
  const heads = [...$("groups").closest("table").tHead.rows[0].cells].slice(1).map((head) => head.textContent);
  const cells = [money(group.cost), hours(time), bar, number(group.requests), tokens(group.prompt_tokens), tokens(group.completion_tokens), money(per.input), money(per.output), money(per.all)];
  return el("tr", {}, el("th", { scope: "row" }, name), cells.map((cell, i) => el("td", { class: cell === bar ? null : "num", "data-h": heads[i] }, cell, cell === bar ? el("span", { class: "small muted nowrap", "aria-hidden": "true" }, SHARES.map((share) => percent(time ? group.gpu_s[share] / time : null)).join(", ")) : null)));
}

function draw() {
  const place = measure() === "money" ? 2 : 1, scale = place === 1 ? 3600 : 1, ink = colours();
  const stack = shown.series.map((one, i) => ({ name: one.others ? "all others" : named(one.name), rest: one.others, colour: one.others ? ink.rest : shown.by === "share" ? ink[one.name] : one.name === null ? ink.nobody : ink.hue(i), points: one.points.map((point) => [point[0], point[place] === null ? null : point[place] / scale]) }));
  drawStack($("chart").querySelector(".plot"), stack, shown);
  const sum = ({ points }) => points.reduce((all, [, v]) => (v === null ? all : (all ?? 0) + v), null);
  $("legend").replaceChildren(...stack.map((one) => el("li", {}, el("span", { class: "one" }, el("i", { class: `key block${one.rest ? " rest" : ""}`, style: { "--k": one.colour } }), one.name, el("b", {}, money(sum(one)))))));
  text($("note"), !stack.length ? "No usage in this range." : place === 2 && shown.total.unpriced_gpu_s > 0 ? "GPU time on nodes without a price is not in it." : "");
  twin(stack, place);
}

function twin(stack, place) {
  const times = [...new Set(stack.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => b - a), held = stack.map(({ points }) => new Map(points));
  const when = (at) => moment(at, { day: "2-digit", month: "short", ...(shown.step_s < DAY_S ? { hour: "2-digit", minute: "2-digit" } : { year: "numeric" }) });
  $("twin").replaceChildren(el("table", {}, el("caption", {}, `${place === 2 ? shown.currency : "GPU-hours"} by ${shown.by}, ${shown.step_s < DAY_S ? "by the hour" : "by the day"}, in UTC, newest first.`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Time"), stack.map(({ name }) => el("th", { class: "num", scope: "col" }, name)))),
    el("tbody", {}, times.map((at) => el("tr", {}, el("th", { scope: "row" }, when(at)), held.map((of) => el("td", { class: "num" }, money(of.has(at) ? of.get(at) : 0))))))));
}

const press = (group, name, value) => group.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset[name] === String(value))));

function choose(name, again) {
  $(name).addEventListener("click", (event) => {
    const value = event.target.closest("button")?.dataset[name];
    if (!value) return;
    view[name] = name === "range" ? Number(value) : value;
    press($(name), name, value);
    history.replaceState(null, "", `?by=${view.by}&range=${view.range}${view.measure ? `&measure=${view.measure}` : ""}`);
    again();
  });
  if (view[name]) press($(name), name, view[name]);
}

choose("by", load);
choose("range", load);
choose("measure", () => { if (shown) draw(); });
new ResizeObserver(() => { if (shown) draw(); }).observe($("chart"));
new MutationObserver(() => { if (shown) show(); }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden && shown) load(); });
load();
