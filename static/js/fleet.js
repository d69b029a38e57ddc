// The home page: controls, grouping, filter and selection around the map; the picture itself comes from live.js.
import { el, text } from "./dom.js";
import { FILLS } from "./fills.js";
import { frameTwin, keepingFocus } from "./focus.js";
import { number, plural, unit, UNKNOWN } from "./format.js";
import { start, store, subscribe } from "./live.js";
import { explain, repaint, row, shape } from "./map.js";
import * as panel from "./panel.js";
import { gradient } from "./ramp.js";
import "./fleet_charts.js";
import { kept } from "./timerange.js";
import { drawGroups, groupKeys, matches } from "./groups.js";

const DENSE_OVER = 50;
const map = document.getElementById("map"), filter = document.getElementById("filter"), groupBy = document.getElementById("group");
const url = new URLSearchParams(location.search);
let drawn = -1; // how many nodes there were at the last drawing
const view = { fill: FILLS[url.get("fill")] ? url.get("fill") : "utilization", group: url.get("group") || "none", columns: 8, dense: false };
const rows = new Map(); // element -> {element, node id, shape}; a node has a row in each of its groups
const byNode = new Map(); // node id -> its rows
const visible = new Set(); // only what is seen is repainted: a thousand nodes cost no more than a screenful
const watch = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  const found = rows.get(target);
  if (!found) return;
  if (isIntersecting) { visible.add(found); paintRow(found); } else visible.delete(found);
}), { rootMargin: "300px" });
filter.value = url.get("filter") || "";

function paintRow(found, how = view) {
  const node = store.nodes.get(found.id);
  if (node) repaint(found.element, node, how);
}

function remember() {
  const query = kept();
  if (view.fill !== "utilization") query.set("fill", view.fill);
  if (view.group !== "none") query.set("group", view.group);
  if (filter.value) query.set("filter", filter.value);
  if (panel.selected()) query.set("sel", panel.selected());
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

function legend() {
  const { lo, hi } = FILLS[view.fill];
  text(document.getElementById("lo"), lo);
  text(document.getElementById("hi"), hi);
  document.getElementById("ramp").style.background = gradient();
}

function redraw() {
  const nodes = [...store.nodes.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const shown = nodes.filter((node) => matches(node, filter.value));
  Object.assign(view, { dense: shown.length > DENSE_OVER, columns: columns(nodes) });
  drawn = nodes.length;
  map.classList.toggle("dense", view.dense);
  map.style.setProperty("--cols", view.columns);
  watch.disconnect();
  for (const held of [rows, byNode, visible]) held.clear();
  keepingFocus(map, () => { map.replaceChildren(...drawGroups(shown, view.group, build)); panel.refresh(); }, frameTwin);
  document.getElementById("empty").hidden = nodes.length > 0;
  text(document.getElementById("shown"), filter.value ? `${shown.length} of ${plural(nodes.length, "node")}` : "");
  document.getElementById("nothing").hidden = !(nodes.length && !shown.length);
  map.setAttribute("aria-busy", "false");
  groupKeys(nodes, groupBy, view.group);
}

const columns = (nodes) => Math.min(16, Math.max(4, ...nodes.map((node) => node.gpus.length)));

function build(node, keep = () => true) {
  const element = row(node, view, keep), record = { element, id: node.id, name: node.name, shape: shape(node, view) };
  rows.set(element, record);
  byNode.set(node.id, [...(byNode.get(node.id) || []), record]);
  watch.observe(element);
  return element;
}

/** One row anew in its place, the others untouched: a click that began there still counts. */
function rebuild(node) {
  const [old] = byNode.get(node.id);
  watch.unobserve(old.element);
  rows.delete(old.element); visible.delete(old); byNode.delete(node.id);
  old.element.replaceWith(build(node));
}

function changed({ all, nodes }) {
  summary();
  const told = all ? [...store.nodes.values()] : nodes, ids = new Set(told.map((node) => node.id));
  const moved = told.filter(isMoved), first = drawn < 0;
  if (first || drawn !== store.nodes.size || [...byNode.keys()].some((id) => !store.nodes.has(id)) || !moved.every(staysPut)) redraw();
  else if (moved.length) keepingFocus(map, () => { moved.forEach(rebuild); panel.refresh(); }, frameTwin);
  if (!first && moved.length) window.htmx?.trigger(document.body, "fleet-moved");
  visible.forEach((found) => { if (ids.has(found.id)) paintRow(found); });
  panel.refresh(ids);
}

/** Whether a moved node's row can be built anew where it is. */
function staysPut(node) {
  const [held] = byNode.get(node.id) || [];
  return view.group === "none" && held?.name === node.name && matches(node, filter.value) && columns([...store.nodes.values()]) === view.columns;
}

/** Whether a row has to be built anew: another shape, or a node that now matches the filter or no longer does. */
function isMoved(node) {
  const held = byNode.get(node.id);
  return Boolean(held) !== matches(node, filter.value) || (held && held[0].shape !== shape(node, view));
}

function summary() {
  const s = store.summary;
  if (!s) return;
  const put = (id, value, sub) => { text(document.getElementById(`k-${id}`), value); if (sub !== undefined) text(document.getElementById(`k-${id}-sub`), sub); };
  put("gpus", number(s.gpus.assigned), `of ${s.gpus.total}, ${s.gpus.idle} idle, ${s.gpus.unhealthy} unhealthy`);
  put("nodes", number(s.nodes.total), s.nodes.silent ? `${s.nodes.silent} silent` : "all reporting");
  put("models", number(s.active_models), s.window_s ? `in the last ${number(s.window_s)} s` : "no request figures yet");
  for (const key of ["ttft_ms", "itl_ms"]) put(key, unit(s[key]?.p95, "ms"), s[key]?.p50 == null ? "no requests in the window" : `p50 ${unit(s[key].p50, "ms")}`);
  put("out", unit(s.tokens_out_per_s, "tok/s"), s.rps == null ? UNKNOWN : `${number(s.rps, 1)} requests/s`);
  document.getElementById("k-nodes-sub").classList.toggle("warned", s.nodes.silent > 0);
  document.getElementById("k-gpus-sub").classList.toggle("warned", s.gpus.unhealthy > 0);
}

document.getElementById("fill").append(...Object.entries(FILLS).map(([key, { label }]) =>
  el("button", { type: "button", "data-fill": key, "aria-pressed": String(key === view.fill) }, label)));
document.getElementById("fill").addEventListener("click", (event) => {
  const { fill } = event.target.dataset;
  if (!fill) return;
  view.fill = fill;
  event.currentTarget.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.fill === fill)));
  rows.forEach((found) => paintRow(found));
  legend(); remember();
});
groupBy.addEventListener("change", () => { view.group = groupBy.value; redraw(); remember(); });
filter.addEventListener("input", () => { redraw(); remember(); });
document.addEventListener("forebay:theme", () => { legend(); if (store.ready) redraw(); });
panel.attach(map, { onSelect: remember, initial: url.get("sel") });
map.addEventListener("pointerover", (event) => { const cell = event.target.closest(".cell"); if (cell) explain(cell, store.nodes.get(Number(cell.closest(".node").dataset.node))); });
setInterval(() => {
  const quick = { ...view, agesOnly: view.fill !== "age" };
  visible.forEach((found) => paintRow(found, quick));
  panel.tick();
  document.querySelector(".kpis").classList.toggle("stale", !store.online && Date.now() - store.heard > 6000);
}, 1000);
subscribe(changed);
legend();
start();
