// The fleet map as plain elements: a row a node, a frame a partition, a cell a GPU, always in the same place.
import { el, glyph, icon, text } from "./dom.js";
import { FILLS, describe, read } from "./fills.js";
import { UNKNOWN, age, plural } from "./format.js";
import { ageOf, isBehind, isStale, silence } from "./live.js";
import { paint } from "./ramp.js";

const own = new WeakMap(); // a row's element -> what is repainted in it
const CALM = new Set(["ready", "unassigned"]);
const SHORT = { crash_looping: "crashing" };
const WORDS = { crash_looping: "crash-looping", never_seen: "never seen" };
export const words = (status) => WORDS[status] || status;
export const partOf = (node, gpu) => node.partitions.find((part) => part.id === gpu.partition) || null;

/** Everything that changes a row's shape; the rest is repainted in place. */
export function shape(node, view) {
  const parts = node.partitions.map((p) => [p.id, p.name, p.role, p.deployment?.name, p.status, p.confirmed, p.overflow, p.gpus.join()]);
  const gpus = node.gpus.map((g) => [g.id, g.index, g.partition, g.health, g.present, g.foreign, g.flag]);
  return JSON.stringify([node.name, node.labels, node.status, node.schedulable, node.draining, node.simulated, parts, gpus, view.columns, view.dense]);
}

export function row(node, view, keep = () => true) {
  const cells = el("div", { class: "gpus", style: { "--cols": view.columns } });
  runs(node, view.columns).forEach((run) => cells.append(frame(node, run, view, keep)));
  const short = view.dense ? cut(node.name, view.columns) : node.name;
  const name = el("a", { class: "name", href: `/nodes/${node.id}/`, ...(short === node.name ? {} : { title: node.name, "aria-label": node.name }) }, short);
  const result = el("div", { class: "node", "data-node": node.id, role: "group", "aria-label": node.name },
    el("div", { class: "whose" }, el("div", { class: "line" }, marks(node), name), el("div", { class: "meta" })),
    cells, el("div", { class: "age", "data-age": "" }));
  if (!node.gpus.length) cells.append(el("span", { class: "none" }, node.seen === null ? "has not reported yet" : "no GPU reported"));
  const places = new Map(node.gpus.map((gpu, place) => [String(gpu.id), place]));
  own.set(result, { age: result.lastChild, meta: result.querySelector(".meta"), cells: [...cells.querySelectorAll(".cell")].map((cell) => ({ cell, place: places.get(cell.dataset.gpu), is: null })) });
  repaint(result, node, view);
  return result;
}

/** The middle of a name that is too long for a dense row: a clip of its own for each name is what costs most in a scroll. */
function cut(name, columns) {
  const most = Math.max(8, Math.floor((columns * 9 + 34) / 6)), half = Math.floor((most - 1) / 2);
  return name.length <= most ? name : `${name.slice(0, most - 1 - half)}…${name.slice(-half)}`;
}

function marks(node) {
  const list = [];
  if (node.status === "cordoned" || !node.schedulable) list.push(el("span", { class: "mark", title: "cordoned: nothing new is assigned here" }, icon("lock")));
  if (node.draining) list.push(el("span", { class: "mark", title: "draining" }, icon("clock")));
  return list;
}

/** Neighbouring GPUs of one partition on one line of the grid are one frame. */
function runs(node, columns) {
  const result = [];
  const seen = new Set();
  [...node.gpus].sort((a, b) => a.index - b.index).forEach((gpu, place) => {
    const last = result[result.length - 1];
    const column = place % columns, part = partOf(node, gpu);
    if (last && part && last.part === part && column > 0) { last.gpus.push(gpu); return; }
    result.push({ part, gpus: [gpu], column, line: Math.floor(place / columns), again: part && seen.has(part.id) });
    if (part) seen.add(part.id);
  });
  return result;
}

function frame(node, run, view, keep) {
  const { part } = run;
  const status = part ? part.status : "free";
  const kept = keep(part, run.gpus[0]);
  const kind = ["part", part?.role, `is-${status}`, part && !part.deployment ? "vacant" : "", part ? "" : "free", kept ? "" : "other"];
  const props = {
    class: kind.filter(Boolean).join(" "), role: "button", tabindex: "-1", "data-part": part?.id, "data-node": node.id,
    "data-gpu": run.gpus[0].id, "data-deployment": part?.deployment?.id, "aria-label": label(node, run),
    style: { "grid-column": `${run.column + 1} / span ${run.gpus.length}`, "grid-row": run.line + 1 },
  };
  if (!kept) { delete props.role; delete props.tabindex; props["aria-hidden"] = "true"; }
  return el("div", props, view.dense ? null : tag(run), el("div", { class: "cells" },
    run.gpus.map((gpu) => el("span", { class: `cell${trouble(gpu) ? " sick" : ""}`, "data-gpu": gpu.id }))));
}

function tag({ part, again }) {
  if (!part) return el("span", { class: "tag" }, el("span", { class: "what" }, "free"));
  const state = CALM.has(part.status) && (part.confirmed || !part.deployment) && !part.overflow ? null : el("span", { class: "state" }, part.status === "ready" ? (part.confirmed ? "lent" : "unconfirmed") : SHORT[part.status] || words(part.status));
  const what = part.deployment ? part.deployment.name : `${part.name} idle`;
  return el("span", { class: "tag" }, part.role ? glyph(part.role) : null, el("span", { class: "what" }, again ? `+ ${what}` : what), again ? null : state);
}

function label(node, { part, gpus }) {
  const where = `${node.name}, GPU ${gpus.map((g) => g.index).join(" ")}`;
  if (!part) return `${where}: in no partition`;
  return `${where}: partition ${part.name}, ${part.deployment ? `${part.role} of ${part.deployment.name}, ${words(part.status)}${part.overflow ? ", lent by the pool" : ""}` : "not assigned"}`;
}

const trouble = (gpu) => gpu.health !== "ok" || !gpu.present || gpu.foreign || Boolean(gpu.flag);

/** A cell's words, made when somebody points at it. */
export function explain(cell, node) {
  const gpu = node?.gpus.find((g) => String(g.id) === cell.dataset.gpu);
  if (gpu) cell.title = describe(gpu, partOf(node, gpu), node);
}

/** Values, ages and greying; called once a frame for nodes that were heard and once a second for all in sight. */
export function repaint(element, node, view) {
  const stale = isStale(node), held = own.get(element);
  element.classList.toggle("silent", stale);
  if (!view.dense) {
    text(held.age, node.seen === null ? UNKNOWN : age(ageOf(node)));
    text(held.meta, meta(node, stale));
  }
  const behind = view.fill !== "age" && isBehind(node, view.fill);
  held.cells.forEach((mine) => fill(mine, node.gpus[mine.place], node, view, behind));
}

function meta(node, stale) {
  const extra = node.simulated ? " · simulated" : "";
  if (node.seen === null) return `never reported${extra}`;
  if (stale) return `${silence(node)}${extra}`;
  const kinds = new Set(node.gpus.map((gpu) => gpu.kind));
  return `${plural(node.gpus.length, kinds.size === 1 && kinds.has("cpu") ? "CPU slot" : "GPU")} · ${words(node.status)}${extra}`;
}

/** A figure that came into sight and is not here yet is not known: what was known before is older than it looks. */
function fill(mine, gpu, node, view, behind) {
  if (!gpu) return;
  const value = behind ? null : read(view.fill, gpu, partOf(node, gpu), node);
  const { place: placeOf, show, unit: mark } = FILLS[view.fill];
  const place = value === null ? null : placeOf(value);
  const resting = place !== null && !partOf(node, gpu)?.deployment && place < 0.05; // nothing runs there, as it should be
  const said = view.dense ? "" : value === null ? UNKNOWN : show(value) + (view.columns <= 8 && mark === "%" ? "%" : "");
  const colours = place === null || resting ? { fill: "", ink: "" } : paint(place);
  const is = `${value === null}${resting}${colours.fill}${said}`;
  if (is === mine.is) return;
  mine.is = is;
  mine.cell.classList.toggle("unknown", value === null);
  mine.cell.classList.toggle("resting", resting);
  mine.cell.style.background = colours.fill;
  mine.cell.style.color = view.dense ? "" : colours.ink;
  text(mine.cell, said);
}
