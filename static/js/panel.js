// What is selected beside the map, from the fleet to a node, a GPU and its engine, and the way between them.
import { el, glyph, text } from "./dom.js";
import { put, tabStop } from "./focus.js";
import { UNKNOWN, age, percent } from "./format.js";
import { ageOf, isStale } from "./live.js";
import { actions, below, facts, find, hours, messages, roleOf, trail, what } from "./panel_facts.js";
import { sparks } from "./spark.js";

const box = document.getElementById("panel");
const may = box.dataset.may.split(" ");
let chosen = null, map = null, onSelect = () => {};
export const selected = () => chosen;
/** The node that is looked at closely, or null. */
export const nodeId = () => find(chosen)?.node?.id ?? null;

export function attach(element, { onSelect: callback, initial }) {
  map = element;
  onSelect = callback;
  chosen = initial;
  map.addEventListener("click", clicked);
  map.addEventListener("keydown", keys);
  map.addEventListener("focusin", (event) => tabStop(map, event.target.closest(".part")));
  for (const type of ["pointerover", "focusin"]) map.addEventListener(type, (event) => peers(event.target.closest(".part")));
  for (const type of ["pointerleave", "focusout"]) map.addEventListener(type, () => peers(null));
  box.addEventListener("click", (event) => { if (event.target.closest("[data-close]")) close(); else { const to = event.target.closest("[data-go]"); if (to) go(to.value); } });
  box.addEventListener("keydown", walk);
}

/** To another thing; null puts the panel away. */
export function select(key) {
  chosen = key;
  mark(); draw(); onSelect();
}

function clicked(event) {
  if (event.target.closest("a")) return;
  const frame = event.target.closest(".part:not(.other)"), row = event.target.closest(".whose, .node > .age")?.closest(".node");
  if (!frame && !row) return;
  select(frame ? keyOf(frame) : `n${row.dataset.node}`);
  if (matchMedia("(max-width: 1100px)").matches) box.scrollIntoView({ block: "nearest" });
}

const keyOf = (frame) => (frame.dataset.part ? `p${frame.dataset.part}` : `g${frame.dataset.gpu}`);

function close() {
  select(null);
  tabStop(map)?.focus();
}

/** Along the way; focus goes to where one came from, else to the first thing below. */
function go(key) {
  const from = chosen;
  select(key);
  (box.querySelector(`[data-below] [value="${CSS.escape(from || "")}"]`) || box.querySelector("[data-below] button") || box.querySelector("h2")).focus();
}

function up() {
  const found = find(chosen), way = found ? trail(found) : [];
  if (way.length < 2) close(); else go(way[way.length - 2][0]);
}

/** Escape and left go up, right and Enter down, up and down along what lies below. */
function walk(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, [data-message]")) return;
  const all = [...box.querySelectorAll("[data-below] button")], at = all.indexOf(document.activeElement);
  const step = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (step !== undefined && all.length) all[Math.max(0, Math.min(all.length - 1, step))].focus();
  else if (event.key === "ArrowRight" && all.length) go(all[Math.max(0, at)].value);
  else if (event.key === "ArrowLeft" || event.key === "Escape") up();
  else return;
  event.preventDefault();
}

function keys(event) {
  const frame = event.target.closest(".part");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && chosen) { event.preventDefault(); close(); return; }
  if (event.key === "n" && event.target.closest(".node")) { event.preventDefault(); go(`n${event.target.closest(".node").dataset.node}`); return; }
  if (!frame) return;
  const all = [...map.querySelectorAll(".part:not(.other)")], at = all.indexOf(frame);
  const step = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (step !== undefined) { event.preventDefault(); all[Math.min(all.length - 1, Math.max(0, step))].focus(); }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); vertical(frame, event.key === "ArrowDown" ? 1 : -1); }
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(keyOf(frame)); }
  const role = { p: "prefill", d: "decode", a: "aggregated" }[event.key];
  if (!role || !frame.dataset.part || !may.includes("assign")) return;
  const { part, deployment } = frame.dataset;
  location.href = deployment ? `/board/?move=${part}:${deployment}:${role}` : `/board/?pick=${part}&role=${role}`;
}

function vertical(frame, direction) {
  const lines = [...map.querySelectorAll(".node")], line = lines[lines.indexOf(frame.closest(".node")) + direction];
  const x = frame.getBoundingClientRect().left;
  const near = [...(line?.querySelectorAll(".part:not(.other)") || [])].sort((a, b) => Math.abs(a.getBoundingClientRect().left - x) - Math.abs(b.getBoundingClientRect().left - x));
  near[0]?.focus();
}

function peers(frame) {
  const id = frame?.dataset.deployment || map.querySelector(".part.sel")?.dataset.deployment;
  map.querySelectorAll(".part.peer").forEach((p) => { if (p.dataset.deployment !== id) p.classList.remove("peer"); });
  if (id) map.querySelectorAll(`.part[data-deployment="${id}"]`).forEach((p) => p.classList.add("peer"));
}

function mark() {
  map.querySelectorAll(".part.sel, .node.sel").forEach((p) => p.classList.remove("sel"));
  const [kind, id] = [chosen?.[0], CSS.escape(chosen?.slice(1) || "")];
  const frames = map.querySelectorAll({ p: `.part[data-part="${id}"]`, g: `.part:has([data-gpu="${id}"])`, n: `.node[data-node="${id}"]` }[kind] || ".none-such");
  frames.forEach((p) => p.classList.add("sel"));
  tabStop(map, (kind !== "n" && frames[0]) || map.querySelector('.part[tabindex="0"]') || map.querySelector(".part:not(.other)"));
  peers(null);
}

/** After a frame: the whole panel only when what it shows may have changed. */
export function refresh(ids) {
  if (!ids) mark();
  const found = find(chosen);
  if (!ids || !found || found.kind === "c" || ids.has(found.node.id)) draw(found);
}

export function tick() {
  const found = find(chosen);
  if (!found?.node) return;
  text(box.querySelector("[data-panel-age]"), found.node.seen === null ? UNKNOWN : `${age(ageOf(found.node))} old`);
  box.classList.toggle("stale", isStale(found.node));
}

function draw(found = find(chosen)) {
  box.hidden = !found;
  box.parentElement.classList.toggle("with-panel", Boolean(found));
  if (!found) { sparks(box.querySelector("[data-sparks]"), []); return; }
  const way = trail(found), message = messages(found).join("\n"), [, name] = way[way.length - 1];
  put(box.querySelector("[data-way]"), ...way.slice(0, -1).map(([key, label]) => el("li", {}, el("button", { class: "link", type: "button", "data-go": "", value: key }, label))), el("li", { "aria-current": "location" }, name));
  text(box.querySelector("h2"), found.kind === "p" || found.kind === "g" ? `${found.node.name} / ${name}` : name);
  put(box.querySelector("[data-role]"), ...roleOf(found));
  put(box.querySelector("[data-what]"), ...what(found));
  box.querySelector("dl").replaceChildren(...facts(found).flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]));
  box.querySelector("[data-message]").hidden = !message;
  text(box.querySelector("[data-message]"), message);
  lower(found);
  put(box.querySelector("[data-actions]"), ...actions(found, may));
  sparks(box.querySelector("[data-sparks]"), hours(found));
  tick();
}

function lower(found) {
  const { title, rows, more } = below(found), list = box.querySelector("[data-below]");
  list.hidden = !rows.length;
  text(list.querySelector("h3"), title);
  put(list.querySelector("ul"), ...rows.map((row) => el("li", {}, el("button", { type: "button", "data-go": "", value: row.key, class: row.bad ? "bad" : "" },
    row.role ? glyph(row.role) : null, el("b", {}, row.name), el("span", { class: "note" }, row.note), el("span", { class: "bar", title: row.of || "utilization" }, el("i", { style: { width: `${Math.round((row.share ?? 0) * 100)}%` } })), el("span", { class: "v" }, percent(row.share))))),
    ...(more ? [el("li", { class: "muted small" }, `and ${more} more: filter the map`)] : []));
}
