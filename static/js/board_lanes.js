// The board's picture: a piece a partition in the lane of what it runs, a ghost where the draft would put it.
import { since } from "./bind.js";
import * as draft from "./board_draft.js";
import { el, glyph, icon, text } from "./dom.js";
import { UNKNOWN, age, number, percent, plural } from "./format.js";
import { ageOf, isStale, silence, store } from "./live.js";
import { words } from "./map.js";
import { paint } from "./ramp.js";

const decks = document.getElementById("decks"), idle = document.getElementById("idle");
const pieces = new Map(); // partition id -> its elements: the piece, and its ghost where it has one
export const selected = new Set();
export const parts = new Map(); // partition id -> {part, node}
export const mean = (values) => { const known = values.filter((v) => v !== null && v !== undefined); return known.length ? known.reduce((a, b) => a + b) / known.length : null; };
const order = (a, b) => full(a).localeCompare(full(b), "en", { numeric: true });
export const full = ({ part, node }) => `${node.name}/${part.name}`;
export const lanes = () => [...document.querySelectorAll("[data-lane]")].map((box) => ({ key: box.dataset.lane, box, label: box.dataset.label }));
export const laneLabel = (key) => document.querySelector(`[data-lane="${CSS.escape(key)}"]`)?.dataset.label || key;

export function read() {
  parts.clear();
  store.nodes.forEach((node) => node.partitions.forEach((part) => parts.set(part.id, { part, node })));
}

/** Whether some partition runs a deployment that was created after this page. */
export const isBehind = () => [...parts.values()].some(({ part }) => part.deployment && !document.querySelector(`[data-lane^="${part.deployment.id}:"]`));

export function draw(filter) {
  const focus = document.activeElement?.closest?.("[data-piece]");
  const held = focus && { id: focus.dataset.piece, ghost: focus.classList.contains("ghost") };
  pieces.clear();
  const byLane = new Map(lanes().map(({ key }) => [key, []]));
  const shown = [...parts.values()].filter((found) => matches(found, filter)).sort(order);
  shown.forEach((found) => {
    const to = draft.target(found.part.id), from = draft.laneOf(found.part);
    byLane.get(from)?.push(piece(found, to));
    if (to) byLane.get(to)?.push(ghost(found, to));
  });
  for (const [key, list] of byLane) if (key !== draft.IDLE) fill(document.querySelector(`[data-lane="${CSS.escape(key)}"]`), list);
  drawIdle(byLane.get(draft.IDLE));
  decks.closest("[aria-busy]").setAttribute("aria-busy", "false");
  document.getElementById("nothing").hidden = !(filter && !shown.length && parts.size);
  document.getElementById("no-nodes").hidden = parts.size > 0;
  mark();
  repaint();
  if (held) (pieces.get(Number(held.id)) || []).find((e) => e.classList.contains("ghost") === held.ghost)?.focus({ preventScroll: true });
  if (!document.querySelector("[data-piece][tabindex='0']")) document.querySelector("[data-piece]")?.setAttribute("tabindex", "0");
}

function fill(box, list) {
  box.querySelector(".pieces").replaceChildren(...list);
  box.classList.toggle("bare", !list.length);
}

function drawIdle(list) {
  const byNode = new Map();
  list.forEach((element) => { const name = element.dataset.node; byNode.set(name, [...(byNode.get(name) || []), element]); });
  const rows = [...byNode].map(([name, members]) => el("div", { class: "shelf" }, el("span", { class: "whose" }, el("a", { href: `/nodes/${members[0].dataset.nodeId}/` }, name)), el("div", { class: "pieces" }, members)));
  idle.querySelector(".shelves").replaceChildren(...(rows.length ? rows : [el("p", { class: "none" }, parts.size ? "No partition is idle." : "")]));
}

function matches(found, filter) {
  const { part, node } = found, all = [full(found), part.deployment?.name, part.role, words(part.status), words(node.status), ...Object.values(node.labels || {})].join(" ").toLowerCase();
  return filter.toLowerCase().split(/\s+/).filter(Boolean).every((word) => all.includes(word));
}

function piece(found, to) {
  const { part, node } = found;
  const marks = [];
  if (node.draining) marks.push(el("span", { class: "mark", title: `${node.name} is draining` }, icon("clock")));
  else if (!node.schedulable) marks.push(el("span", { class: "mark", title: `${node.name} is cordoned: nothing new is assigned here` }, icon("lock")));
  const change = store.changes.find((one) => one.partitions.includes(part.id));
  if (change) marks.push(el("a", { class: "mark", href: `/changes/${change.id}/`, title: `in change ${change.id} of ${change.actor}: ${change.steps_done} of ${plural(change.steps_total, "step")}` }, icon("turn")));
  return shape(found, { class: `piece ${part.role || "vacant"} is-${part.status}${to ? " leaving" : ""}` },
    [part.role ? glyph(part.role) : null, el("b", {}, full(found)), marks, el("span", { class: "n" }, plural(part.gpus.length, "GPU"))],
    [el("span", { class: "state" }), el("span", { class: "use" }), el("span", { class: "load", title: "requests running + waiting" }), el("span", { class: "old", title: "age of the data" })], to ? el("span", { class: "to" }, `to ${laneLabel(to)}`) : el("i", { class: "gauge" }));
}

function ghost(found, to) {
  const role = to === draft.IDLE ? "" : to.split(":")[1];
  const from = found.part.deployment ? `was ${found.part.role} of ${found.part.deployment.name}` : "was idle";
  const away = el("button", { type: "button", class: "away", "data-remove": found.part.id, "aria-label": `Take ${full(found)} out of the draft`, title: "Take out of the draft" }, icon("cross"));
  return shape(found, { class: `piece ghost ${role || "vacant"}` }, [role ? glyph(role) : null, el("b", {}, full(found)), el("span", { class: "n" }, plural(found.part.gpus.length, "GPU")), away], [el("span", {}, from)]);
}

function shape(found, props, top, bottom, last = null) {
  const element = el("div", { ...props, role: "option", tabindex: "-1", "data-piece": found.part.id, "data-node": found.node.name, "data-node-id": found.node.id },
    el("div", { class: "top" }, top.flat()), el("div", { class: "bottom" }, bottom), last);
  pieces.set(found.part.id, [...(pieces.get(found.part.id) || []), element]);
  return element;
}

export function mark() {
  [...selected].filter((id) => !parts.has(id)).forEach((id) => selected.delete(id));
  document.querySelectorAll("[data-piece]").forEach((element) => element.setAttribute("aria-selected", String(selected.has(Number(element.dataset.piece)))));
}

/** Live values, once a frame and once a second. */
export function repaint() {
  for (const [id, elements] of pieces) elements.forEach((element) => { const found = parts.get(id); if (found && !element.classList.contains("ghost")) refresh(element, found); });
  lanes().forEach(({ key, box }) => text(box.querySelector(".sum"), summary(key)));
  document.querySelectorAll("[data-deck]").forEach((deck) => text(deck.querySelector(".served"), served(Number(deck.dataset.deck))));
}

function refresh(element, { part, node }) {
  const stale = isStale(node), busy = mean(part.gpus.map((id) => node.gpus.find((g) => g.id === id)?.utilization)), put = (name, value) => text(element.querySelector(`.${name}`), value);
  element.classList.toggle("silent", stale);
  const state = stale ? silence(node) : part.status === "ready" && !part.confirmed ? "not confirmed" : part.status === "unassigned" ? "idle" : `${words(part.status)} ${since(part, node).replace("for ", "")}`.trim();
  put("state", state);
  put("use", part.deployment && part.engine ? percent(busy) : "");
  put("load", part.engine && part.deployment ? `${number(part.engine.running)} + ${number(part.engine.waiting)}` : "");
  put("old", stale ? "" : age(ageOf(node)));
  const gauge = element.querySelector(".gauge");
  if (gauge) { gauge.style.width = busy === null ? "0" : `${Math.round(busy * 100)}%`; gauge.style.background = stale || busy === null ? "" : paint(busy).fill; }
  element.setAttribute("aria-label", `${full({ part, node })}, ${plural(part.gpus.length, "GPU")}, ${part.deployment ? `${part.role} of ${part.deployment.name}, ` : ""}${state}${part.engine ? `, ${number(part.engine.running)} requests running, ${number(part.engine.waiting)} waiting` : ""}${draft.target(part.id) ? `, in the draft to ${laneLabel(draft.target(part.id))}` : ""}`);
}

function summary(key) {
  const here = [...parts.values()].filter(({ part }) => draft.laneOf(part) === key), later = [...parts.values()].filter(({ part }) => (draft.target(part.id) ?? draft.laneOf(part)) === key);
  const gpus = (list) => list.reduce((n, { part }) => n + part.gpus.length, 0);
  const change = here.length !== later.length || gpus(here) !== gpus(later);
  return change ? `${here.length} → ${plural(later.length, "engine")}, ${gpus(here)} → ${plural(gpus(later), "GPU")}` : here.length ? `${plural(here.length, key === draft.IDLE ? "partition" : "engine")}, ${plural(gpus(here), "GPU")}` : "";
}

function served(id) {
  const engines = [...parts.values()].filter(({ part, node }) => part.deployment?.id === id && part.engine && !isStale(node)).map(({ part }) => part.engine);
  const sum = (key) => { const known = engines.map((e) => e[key]).filter((v) => v !== null && v !== undefined); return known.length ? known.reduce((a, b) => a + b) : null; };
  return engines.length ? `${number(sum("running"))} running, ${number(sum("waiting"))} waiting` : `${UNKNOWN} in flight`;
}
