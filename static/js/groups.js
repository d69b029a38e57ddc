// Grouping and filtering of the fleet map. GPUs keep their places: a group shows only its own partitions of a node.
import { el } from "./dom.js";
import { words } from "./map.js";

const NONE = "not assigned";
const BASE = { none: "No groups", model: "Model", role: "Role", kind: "GPU kind", status: "Node status" };

/** Words must all match; `key:value` looks at one fact only. */
export function matches(node, query) {
  return query.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const [key, value] = word.includes(":") ? word.split(/:(.*)/s) : [null, word];
    return facts(node).some(([name, fact]) => (key === null || name === key) && fact.toLowerCase().includes(value));
  });
}

function facts(node) {
  const list = [["node", node.name], ["status", words(node.status)]];
  if (node.simulated) list.push(["node", "simulated"]);
  Object.entries(node.labels || {}).forEach(([key, value]) => list.push([key.toLowerCase(), String(value)]));
  node.gpus.forEach((gpu) => { list.push(["kind", gpu.name]); if (gpu.health !== "ok") list.push(["health", gpu.health]); });
  node.partitions.forEach((part) => {
    list.push(["status", words(part.status)], ["partition", part.name]);
    if (part.deployment) list.push(["model", part.deployment.name], ["role", part.role]);
  });
  return list;
}

export function groupKeys(nodes, select, chosen) {
  const labels = [...new Set(nodes.flatMap((node) => Object.keys(node.labels || {})))].sort();
  const wanted = [...Object.entries(BASE), ...labels.map((key) => [`label:${key}`, key])];
  if (chosen.startsWith("label:") && !labels.includes(chosen.slice(6))) wanted.push([chosen, chosen.slice(6)]);
  const signature = JSON.stringify(wanted);
  if (select.dataset.signature === signature) return;
  select.dataset.signature = signature;
  select.replaceChildren(...wanted.map(([value, label]) => el("option", { value, selected: value === chosen }, label)));
}

/** `lay` gives the elements of some nodes' rows, all of them in one group. */
export function drawGroups(nodes, by, lay) {
  if (by === "none") return lay(nodes);
  return sections(nodes, by).map(([name, members]) => el("section", { class: "group" },
    el("h2", {}, name, el("span", { class: "small faint" }, ` ${members.length}`)), el("div", { class: "members" }, lay(members, name))));
}

/** The groups that a node has a row in. */
export function groupsOf(node, by) {
  if (by === "none") return [undefined];
  if (by === "model" || by === "role") {
    const keys = new Set(node.partitions.map((part) => key(part, by)));
    if (!node.gpus.length || node.gpus.some((gpu) => !gpu.partition)) keys.add(NONE);
    return [...keys];
  }
  if (by === "status") return [words(node.status)];
  if (by === "kind") return [[...new Set(node.gpus.map((gpu) => gpu.name))].join(", ") || "no GPU reported"];
  return [String(node.labels?.[by.slice(6)] ?? `no ${by.slice(6)}`)];
}

/** Which partitions a node's row in a group shows. */
export const keeps = (by, name) => (by === "model" || by === "role" ? (part) => key(part, by) === name : () => true);
const key = (part, by) => (part?.deployment ? (by === "model" ? part.deployment.name : part.role) : NONE);

function sections(nodes, by) {
  const groups = new Map();
  nodes.forEach((node) => groupsOf(node, by).forEach((name) => { if (!groups.has(name)) groups.set(name, []); groups.get(name).push(node); }));
  return [...groups].sort(([a], [b]) => (a === NONE) - (b === NONE) || a.localeCompare(b, "en", { numeric: true }));
}
