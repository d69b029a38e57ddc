// The home page: controls, grouping, filter and selection around the map; the picture itself comes from live.js.
import { el, text } from "./dom.js";
import { FILLS } from "./fills.js";
import { frameTwin, keepingFocus } from "./focus.js";
import { plural } from "./format.js";
import { show, start, store, subscribe } from "./live.js";
import { explain, repaint, row, shape } from "./map.js";
import { paintSoon, paintWith } from "./painter.js";
import * as panel from "./panel.js";
import { gradient } from "./ramp.js";
import { summary } from "./summary.js";
import { byNode, clear, inSight, isThere, onSight, put, replace } from "./sight.js";
import "./fleet_charts.js";
import { kept } from "./timerange.js";
import { drawGroups, groupKeys, groupsOf, keeps, matches } from "./groups.js";

const DENSE_OVER = 50, GAP = 12, LINES = 6, NARROW = 480;
const map = document.getElementById("map"), filter = document.getElementById("filter"), groupBy = document.getElementById("group");
const url = new URLSearchParams(location.search), inOrder = new Intl.Collator("en", { numeric: true }).compare;
let drawn = -1, across = 1; // how many nodes there were at the last drawing, and how many of them side by side
const view = { fill: FILLS[url.get("fill")] ? url.get("fill") : "utilization", group: url.get("group") || "none", columns: 8, dense: false };
let pointed = null; // the cell under the pointer
filter.value = url.get("filter") || "";

paintWith((found) => {
  const node = store.nodes.get(found.id);
  if (node && isThere(found)) repaint(found.element, node, view);
});
onSight((found) => { found.forEach(paintSoon); tellView(); });

/** What is in sight comes with the frames, and all of the nodes that somebody looks at closely. */
function tellView() {
  const detail = [panel.nodeId(), pointed && Number(pointed.closest(".node")?.dataset.node)].filter(Boolean);
  show({ fill: view.fill === "age" ? null : view.fill, nodes: [...new Set(inSight().map((found) => found.id))], detail: [...new Set(detail)] });
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
  const nodes = [...store.nodes.values()].sort((a, b) => inOrder(a.name, b.name));
  const shown = nodes.filter((node) => matches(node, filter.value));
  view.dense = shown.length > DENSE_OVER; view.columns = columns(nodes);
  drawn = nodes.length;
  map.classList.toggle("dense", view.dense);
  map.style.setProperty("--cols", view.columns);
  across = fitting();
  clear();
  keepingFocus(map, () => { map.replaceChildren(...drawGroups(shown, view.group, lay)); panel.refresh(); }, frameTwin);
  document.getElementById("empty").hidden = nodes.length > 0;
  text(document.getElementById("shown"), filter.value ? `${shown.length} of ${plural(nodes.length, "node")}` : "");
  document.getElementById("nothing").hidden = !(nodes.length && !shown.length);
  map.setAttribute("aria-busy", "false");
  groupKeys(nodes, groupBy, view.group);
}

/** On a phone four GPUs side by side, or nothing could be read of a partition of one. */
const columns = (nodes) => Math.min(!view.dense && map.clientWidth < NARROW ? 4 : 16, Math.max(4, ...nodes.map((node) => node.gpus.length)));

const fitting = () => Math.max(1, Math.floor((map.clientWidth + GAP) / (view.columns * 9 + 34 + GAP)));

function build(node, group) {
  const element = row(node, view, keeps(view.group, group));
  return { element, id: node.id, name: node.name, shape: shape(node, view), group };
}

/** The rows of some nodes; many small ones lie side by side on shelves, each a few lines high. */
function lay(nodes, group) {
  const rows = nodes.map((node) => build(node, group));
  if (!view.dense) { put(rows); return rows.map(({ element }) => element); }
  const size = across * LINES;
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => {
    const mine = rows.slice(i * size, (i + 1) * size);
    const shelf = el("div", { class: "shelf", style: { "--across": across, "--lines": Math.ceil(mine.length / across) } }, mine.map(({ element }) => element));
    put(mine, shelf);
    return shelf;
  });
}

/** A node's rows anew in their places, the others untouched: a click that began there still counts. */
const rebuild = (node) => [...byNode.get(node.id)].forEach((old) => replace(old, build(node, old.group)));

function changed({ all, nodes, filled = [] }) {
  summary();
  const told = all ? [...store.nodes.values()] : nodes, ids = new Set([...told.map((node) => node.id), ...filled]);
  const moved = told.filter(isMoved), first = drawn < 0;
  if (first || drawn !== store.nodes.size || [...byNode.keys()].some((id) => !store.nodes.has(id)) || !moved.every(staysPut) || (moved.length && columns([...store.nodes.values()]) !== view.columns)) redraw();
  else if (moved.length) keepingFocus(map, () => { moved.forEach(rebuild); panel.refresh(); }, frameTwin);
  if (!first && moved.length) window.htmx?.trigger(document.body, "fleet-moved");
  inSight().forEach((found) => { if (ids.has(found.id)) paintSoon(found); });
  if (pointed) point(pointed);
  panel.refresh(ids);
}

function point(cell) {
  pointed = cell?.isConnected ? cell : null;
  if (pointed) explain(pointed, store.nodes.get(Number(pointed.closest(".node").dataset.node)));
}

/** Whether a moved node's rows can be built anew where they are. */
function staysPut(node) {
  const held = byNode.get(node.id) || [], groups = groupsOf(node, view.group);
  const same = held.length === groups.length && held.every(({ group, name }) => name === node.name && groups.includes(group));
  return same && matches(node, filter.value);
}

/** Whether a row has to be built anew: another shape, or a node that now matches the filter or no longer does. */
function isMoved(node) {
  const held = byNode.get(node.id);
  return Boolean(held) !== matches(node, filter.value) || (held && held[0].shape !== shape(node, view));
}

document.getElementById("fill").append(...Object.entries(FILLS).map(([key, { label }]) =>
  el("button", { type: "button", "data-fill": key, "aria-pressed": String(key === view.fill) }, label)));
document.getElementById("fill").addEventListener("click", (event) => {
  const { fill } = event.target.dataset;
  if (!fill) return;
  view.fill = fill;
  event.currentTarget.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.fill === fill)));
  inSight().forEach(paintSoon);
  tellView(); legend(); remember();
});
groupBy.addEventListener("change", () => { view.group = groupBy.value; redraw(); remember(); });
filter.addEventListener("input", () => { redraw(); remember(); });
new ResizeObserver(() => { if (view.dense ? fitting() !== across : drawn > 0 && columns([...store.nodes.values()]) !== view.columns) redraw(); }).observe(map);
document.addEventListener("forebay:theme", () => { legend(); if (store.ready) redraw(); });
panel.attach(map, { onSelect: () => { remember(); tellView(); }, initial: url.get("sel") });
map.addEventListener("pointerover", (event) => { point(event.target.closest(".cell")); tellView(); });
map.addEventListener("pointerleave", () => { point(null); tellView(); });
setInterval(() => {
  inSight().forEach(paintSoon);
  panel.tick();
  document.querySelector(".kpis").classList.toggle("stale", !store.online && Date.now() - store.heard > 6000);
}, 1000);
subscribe(changed);
legend();
start();
