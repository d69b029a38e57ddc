// The selected partition or GPU beside the map: facts with their age, a short chart, what can be done.
import { el, glyph, text } from "./dom.js";
import { put, tabStop } from "./focus.js";
import { UNKNOWN, age, bytes, number, percent, plural, span, unit } from "./format.js";
import { ageOf, isStale, store } from "./live.js";
import { words } from "./map.js";
import { spark } from "./spark.js";

const box = document.getElementById("panel");
const may = box.dataset.may.split(" ");
let chosen = null, map = null, onSelect = () => {};
export const selected = () => chosen;

export function attach(element, { onSelect: callback, initial }) {
  map = element;
  onSelect = callback;
  chosen = initial;
  map.addEventListener("click", (event) => { if (!event.target.closest("a")) pick(event.target.closest(".part")); });
  map.addEventListener("keydown", keys);
  map.addEventListener("focusin", (event) => tabStop(map, event.target.closest(".part")));
  for (const type of ["pointerover", "focusin"]) map.addEventListener(type, (event) => peers(event.target.closest(".part")));
  for (const type of ["pointerleave", "focusout"]) map.addEventListener(type, () => peers(null));
  box.addEventListener("click", (event) => { if (event.target.closest("[data-close]")) { chosen = null; draw(); onSelect(); tabStop(map)?.focus(); mark(); } });
}

function pick(frame) {
  if (!frame || frame.classList.contains("other")) return;
  chosen = frame.dataset.part ? `p${frame.dataset.part}` : `g${frame.dataset.gpu}`;
  mark(); draw(); onSelect();
  if (matchMedia("(max-width: 1100px)").matches) box.scrollIntoView({ block: "nearest" });
}

function keys(event) {
  const frame = event.target.closest(".part");
  if (!frame || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...map.querySelectorAll(".part:not(.other)")], at = all.indexOf(frame);
  const step = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (step !== undefined) { event.preventDefault(); all[Math.min(all.length - 1, Math.max(0, step))].focus(); }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); vertical(frame, event.key === "ArrowDown" ? 1 : -1); }
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(frame); }
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
  map.querySelectorAll(".part.sel").forEach((p) => p.classList.remove("sel"));
  const [kind, id] = [chosen?.[0], chosen?.slice(1)];
  const frames = chosen ? map.querySelectorAll(kind === "p" ? `.part[data-part="${CSS.escape(id)}"]` : `.part.free[data-gpu="${CSS.escape(id)}"]`) : [];
  frames.forEach((p) => p.classList.add("sel"));
  tabStop(map, frames[0] || map.querySelector(".part:not(.other)"));
  peers(null);
}

/** After a frame: the whole panel only when its own node changed. */
export function refresh(ids) {
  if (!ids) mark();
  const found = find();
  if (!ids || (found && ids.has(found.node.id))) draw(found);
}

export function tick() {
  const found = find();
  if (!found) return;
  text(box.querySelector("[data-panel-age]"), found.node.seen === null ? UNKNOWN : `${age(ageOf(found.node))} old`);
  box.classList.toggle("stale", isStale(found.node));
}

function find() {
  if (!chosen) return null;
  const id = Number(chosen.slice(1));
  for (const node of store.nodes.values()) {
    const part = chosen[0] === "p" ? node.partitions.find((p) => p.id === id) : null;
    const gpu = chosen[0] === "g" ? node.gpus.find((g) => g.id === id) : null;
    if (part || gpu) return { node, part, gpu, gpus: part ? node.gpus.filter((g) => part.gpus.includes(g.id)) : [gpu] };
  }
  return null;
}

function draw(found = find()) {
  box.hidden = !found;
  box.parentElement.classList.toggle("with-panel", Boolean(found));
  if (!found) return;
  const { node, part, gpus } = found;
  const title = part ? `${node.name} / ${part.name}` : `${node.name} / GPU ${gpus[0].index}`;
  text(box.querySelector("h2"), title);
  put(box.querySelector("[data-role]"), ...(part?.role ? [glyph(part.role), ` ${part.role}`] : []));
  put(box.querySelector("[data-what]"), ...what(found));
  box.querySelector("dl").replaceChildren(...facts(found).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const trouble = gpus.filter((g) => g.health !== "ok" || g.foreign || !g.present).map((g) => `GPU ${g.index}: ${!g.present ? "not in the last report" : g.foreign ? "a process of somebody else runs on it" : `${g.health} ${g.health_detail}`}`);
  const message = [part?.message, ...trouble].filter(Boolean).join("\n");
  box.querySelector("[data-message]").hidden = !message;
  text(box.querySelector("[data-message]"), message);
  put(box.querySelector("[data-actions]"), ...actions(found));
  spark(box.querySelector("[data-spark]"), part ? `partition=${part.id}` : `gpu=${gpus[0].id}`, "utilization", "Utilization");
  tick();
}

function what({ part, gpus }) {
  const where = `${gpus[0].kind === "cpu" ? "CPU slot" : "GPU"} ${span(gpus.map((g) => g.index))}, ${gpus[0].name}`;
  if (!part?.deployment) return [where];
  return [el("a", { href: `/deployments/${part.deployment.id}/` }, part.deployment.name), ` on ${where}`, gpus.length > 1 ? `, TP ${gpus.length}` : ""];
}

function facts({ node, part, gpus }) {
  const mean = (key) => { const v = gpus.map((g) => g[key]).filter((x) => x !== null && x !== undefined); return v.length ? v.reduce((a, b) => a + b) / v.length : null; };
  const sum = (key) => { const v = gpus.map((g) => g[key]).filter((x) => x !== null && x !== undefined); return v.length ? v.reduce((a, b) => a + b) : null; };
  const list = [["Utilization", percent(mean("utilization"))], ["Memory", `${bytes(sum("memory_used_bytes"))} of ${bytes(sum("memory_bytes"))}`]];
  if (mean("temperature_c") !== null) list.push(["Temperature, power", `${unit(mean("temperature_c"), "°C")}, ${unit(sum("power_w"), "W")}`]);
  if (part) list.unshift(["State", part.status === "ready" ? `ready, ${part.confirmed ? "confirmed" : "not confirmed"} at g ${part.observed_generation}` : words(part.status)]);
  if (part?.deployment) list.push(...engineFacts(node, part));
  list.push(["Data", el("span", { "data-panel-age": "" }, "")]);
  return list;
}

function engineFacts(node, part) {
  const e = part.engine || {};
  const peers = [...store.nodes.values()].flatMap((n) => n.partitions).filter((p) => p.id !== part.id && p.deployment?.id === part.deployment.id);
  const roles = ["prefill", "decode", "aggregated"].map((role) => [role, peers.filter((p) => p.role === role).length]).filter(([, n]) => n);
  return [
    ["KV cache", percent(e.kv_usage)], ["Running, waiting", `${number(e.running)}, ${number(e.waiting)}`],
    ["Tokens in, out", `${number(e.prompt_tps)}, ${unit(e.generation_tps, "tok/s")}`], ["KV received", unit(e.kv_in_tps, "tok/s")],
    ["TTFT, ITL", `${unit(e.ttft_ms, "ms")}, ${unit(e.itl_ms, "ms", 1)}`], ["Time to ready", part.ready_after_s == null ? UNKNOWN : `${number(part.ready_after_s, 1)} s`],
    ["Failed starts in a row", number(part.restarts)], ["Peers", roles.map(([role, n]) => plural(n, role, role)).join(", ") || "none"],
  ];
}

function actions({ node, part }) {
  const link = (href, label, kind = "") => el("a", { class: `btn ${kind}`, href }, label);
  const list = [];
  const other = { prefill: "decode", decode: "prefill" }[part?.role];
  if (other && may.includes("assign")) list.push(link(`/board/?move=${part.id}:${part.deployment.id}:${other}`, `Flip to ${other}`, "primary"));
  if (part && may.includes("assign")) list.push(link(`/board/?pick=${part.id}`, "Move…", other ? "" : "primary"));
  if (part?.deployment) list.push(link(`/deployments/${part.deployment.id}/?log=${part.id}#logs`, "Log"));
  if (part?.deployment && may.includes("assign")) list.push(link(`/partitions/${part.id}/release`, "Release"));
  if (!part && may.includes("assign")) list.push(link(`/nodes/${node.id}/#partitions`, "Make a partition", "primary"));
  list.push(link(`/nodes/${node.id}/`, "Node"));
  return list;
}
