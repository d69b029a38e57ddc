// What the panel says of the fleet, a node, a GPU or an engine: facts, what lies below it, links and its small chart.
import { el, glyph } from "./dom.js";
import { UNKNOWN, age, bytes, number, percent, plural, span, unit } from "./format.js";
import { isBehind, isStale, silence, store } from "./live.js";
import { words } from "./map.js";

const MOST_NODES = 12, inOrder = new Intl.Collator("en", { numeric: true }).compare;
const known = (value) => value !== null && value !== undefined;
const mean = (things, key) => { const v = things.map((t) => t[key]).filter(known); return v.length ? v.reduce((a, b) => a + b) / v.length : null; };
const sum = (things, key) => { const v = things.map((t) => t[key]).filter(known); return v.length ? v.reduce((a, b) => a + b) : null; };
const isSick = (gpu) => gpu.health !== "ok" || !gpu.present || gpu.foreign || Boolean(gpu.flag);
const kindOf = (gpu) => (gpu.kind === "cpu" ? "CPU slot" : "GPU");
const link = (href, label, kind = "") => el("a", { class: `btn ${kind}`, href }, label);

/** What `key` names: c the fleet, n a node, g a GPU, p a partition and the engine in it; null where it is gone. */
export function find(key) {
  if (key === "c") return store.ready ? { kind: "c", key } : null;
  const id = Number(key?.slice(1));
  if (!id) return null;
  if (key[0] === "n") { const node = store.nodes.get(id); return node ? { kind: "n", key, node, gpus: node.gpus } : null; }
  for (const node of store.nodes.values()) {
    const part = key[0] === "p" ? node.partitions.find((p) => p.id === id) : null;
    const gpu = key[0] === "g" ? node.gpus.find((g) => g.id === id) : null;
    if (part) return { kind: "p", key, node, part, gpus: node.gpus.filter((g) => part.gpus.includes(g.id)) };
    if (gpu) return { kind: "g", key, node, gpu, gpus: [gpu], part: node.partitions.find((p) => p.id === gpu.partition) || null };
  }
  return null;
}

/** The way down to it, itself last, as [key, name]. */
export function trail(found) {
  const { kind, node, gpu, part, gpus } = found, way = [["c", "Fleet"]];
  if (kind === "c") return way;
  way.push([`n${node.id}`, node.name]);
  if (kind === "g") way.push([`g${gpu.id}`, `${kindOf(gpu)} ${gpu.index}`]);
  if (kind === "p" && gpus.length) way.push([`g${gpus[0].id}`, `${kindOf(gpus[0])} ${span(gpus.map((g) => g.index))}`]);
  if (kind === "p") way.push([`p${part.id}`, part.name]);
  return way;
}

export const roleOf = ({ kind, part }) => (kind === "p" && part.role ? [glyph(part.role), ` ${part.role}`] : []);

export function what({ kind, node, part, gpu, gpus }) {
  if (kind === "c") return [`${plural(store.nodes.size, "node")}, ${plural(store.summary?.gpus.total ?? 0, "GPU")}`];
  if (kind === "n") return [[`${plural(gpus.length, gpus.length && gpus[0].kind === "cpu" ? "CPU slot" : "GPU")}`, gpus[0]?.name, node.simulated ? "simulated" : ""].filter(Boolean).join(" · ")];
  if (kind === "g") return [gpu.name];
  const where = gpus.length ? `${kindOf(gpus[0])} ${span(gpus.map((g) => g.index))}, ${gpus[0].name}` : "no GPU";
  if (!part.deployment) return [where];
  return [el("a", { href: `/deployments/${part.deployment.id}/` }, part.deployment.name), ` on ${where}`, gpus.length > 1 ? `, TP ${gpus.length}` : ""];
}

export function facts(found) {
  if (found.kind === "c") return fleetFacts(store.summary);
  const { kind, node, part, gpus } = found, list = [];
  if (kind === "p") list.push(["State", part.status === "ready" ? `ready, ${part.confirmed ? "confirmed" : "not confirmed"} as generation ${part.observed_generation}` : words(part.status)]);
  if (kind === "n") list.push(["State", words(node.status)], ["Host CPU", percent(node.host?.cpu_utilization)], ["Host memory", node.host ? `${bytes(node.host.memory_used_bytes)} of ${bytes(node.host.memory_bytes)}` : UNKNOWN], ["Disk free", bytes(node.host?.disk_free_bytes)]);
  if (kind === "g") list.push(["Health", gpuHealth(gpus[0]) || "ok"]);
  list.push([kind === "n" ? "GPUs, mean" : "Utilization", percent(mean(gpus, "utilization"))], ["Memory", `${bytes(sum(gpus, "memory_used_bytes"))} of ${bytes(sum(gpus, "memory_bytes"))}`]);
  if (mean(gpus, "temperature_c") !== null) list.push([kind === "n" ? "Hottest, power" : "Temperature, power", `${unit(kind === "n" ? Math.max(...gpus.map((g) => g.temperature_c ?? 0)) : mean(gpus, "temperature_c"), "°C")}, ${unit(sum(gpus, "power_w"), "W")}`]);
  if (kind === "p" && part.deployment) list.push(...engineFacts(part));
  list.push(["Data", el("span", { "data-panel-age": "" }, "")]);
  return list;
}

function fleetFacts(s) {
  if (!s) return [];
  return [
    ["Nodes", `${s.nodes.total}, ${s.nodes.silent} silent`], ["GPUs", `${s.gpus.assigned} assigned, ${s.gpus.idle} idle, ${s.gpus.unhealthy} unhealthy`],
    ["Requests", s.rps === null || s.rps === undefined ? UNKNOWN : `${number(s.rps, 1)} a second`], ["Tokens out", unit(s.tokens_out_per_s, "tok/s")],
    ["TTFT p50, p95", `${unit(s.ttft_ms?.p50, "ms")}, ${unit(s.ttft_ms?.p95, "ms")}`], ["ITL p50, p95", `${unit(s.itl_ms?.p50, "ms", 1)}, ${unit(s.itl_ms?.p95, "ms", 1)}`],
  ];
}

function engineFacts(part) {
  const e = part.engine || {};
  const peers = [...store.nodes.values()].flatMap((n) => n.partitions).filter((p) => p.id !== part.id && p.deployment?.id === part.deployment.id);
  const roles = ["prefill", "decode", "aggregated"].map((role) => [role, peers.filter((p) => p.role === role).length]).filter(([, n]) => n);
  return [
    ["KV cache", percent(e.kv_usage)], ["KV capacity", unit(e.kv_tokens, "tokens")], ["Running, waiting", `${number(e.running)}, ${number(e.waiting)}`],
    ["Tokens in, out", `${number(e.prompt_tps)}, ${unit(e.generation_tps, "tok/s")}`], ["KV received", unit(e.kv_in_tps, "tok/s")],
    ["TTFT, ITL", `${unit(e.ttft_ms, "ms")}, ${unit(e.itl_ms, "ms", 1)}`], ["Time to ready", part.ready_after_s == null ? UNKNOWN : `${number(part.ready_after_s, 1)} s`],
    ["Failed starts in a row", number(part.restarts)], ["Peers", roles.map(([role, n]) => plural(n, role, role)).join(", ") || "none"],
  ];
}

/** What lies below, as {key, name, note, share}: of many nodes those first that need a look; `more` are left out. */
export function below({ kind, node, part, gpus }) {
  if (kind === "c") {
    const all = [...store.nodes.values()].sort((a, b) => trouble(b) - trouble(a) || inOrder(a.name, b.name));
    return { title: "Nodes", more: Math.max(0, all.length - MOST_NODES), rows: all.slice(0, MOST_NODES).map((n) => ({ key: `n${n.id}`, name: n.name, note: nodeNote(n), bad: trouble(n) > 0, share: isStale(n) || isBehind(n, "utilization") ? null : mean(n.gpus, "utilization") })) };
  }
  if (kind === "n") return { title: gpus.some((g) => g.kind !== "cpu") ? "GPUs" : "CPU slots", more: 0, rows: [...gpus].sort((a, b) => a.index - b.index).map((g) => ({ key: `g${g.id}`, name: `${kindOf(g)} ${g.index}`, note: gpuHealth(g) || runs(node.partitions.find((p) => p.id === g.partition)), bad: isSick(g), share: g.utilization })) };
  if (kind === "g" && part) return { title: "Engine", more: 0, rows: [{ key: `p${part.id}`, name: part.name, role: part.role, note: runs(part), bad: ["crash_looping", "lost"].includes(part.status), share: part.engine?.kv_usage, of: "KV cache" }] };
  return { title: "", more: 0, rows: [] };
}

const trouble = (node) => (isStale(node) ? 4 : 0) + (node.gpus.some(isSick) ? 2 : 0) + (node.partitions.some((p) => ["crash_looping", "lost"].includes(p.status)) ? 2 : 0) + (node.draining || !node.schedulable ? 1 : 0);
const runs = (part) => (!part ? "in no partition" : part.deployment ? `${part.deployment.name}${part.status === "ready" ? "" : `, ${words(part.status)}`}` : `${part.name}, idle`);
const gpuHealth = (g) => (!g.present ? "not in the last report" : g.foreign ? "a process of somebody else runs on it" : g.health !== "ok" ? `${g.health} ${g.health_detail}`.trim() : g.flag ? "did not pass its qualification" : "");

function nodeNote(node) {
  if (node.seen === null) return "never reported";
  if (isStale(node)) return silence(node);
  const sick = node.gpus.filter(isSick).length, crashing = node.partitions.filter((p) => p.status === "crash_looping").length;
  return [node.status === "ready" ? "" : words(node.status), sick ? `${plural(sick, "GPU")} unfit` : "", crashing ? `${plural(crashing, "engine")} crash-looping` : ""].filter(Boolean).join(", ") || "ready";
}

export const messages = ({ kind, part, gpus }) => (kind === "c" ? [] : [kind === "p" ? part.message : "", ...gpus.filter(isSick).map((g) => `${kindOf(g)} ${g.index}: ${gpuHealth(g)}${g.flag ? `: ${g.flag}` : ""}`)].filter(Boolean));

/** [subject, metric, words, shape] of its charts over the last hour. */
export function hours({ kind, node, gpu, part }) {
  if (kind === "c") return [["fleet=true", "utilization", "GPU utilization", "band"]];
  if (kind === "n") return [[`node=${node.id}`, "utilization", "GPU utilization"]];
  if (kind === "g") return [[`gpu=${gpu.id}`, "utilization", "Utilization"], [`gpu=${gpu.id}`, "power", "Power"]];
  const flow = part.role === "prefill" ? ["prompt_tps", "Tokens in"] : ["generation_tps", "Tokens out"];
  return [[`partition=${part.id}`, "utilization", "Utilization"], ...(part.deployment ? [[`partition=${part.id}`, ...flow]] : [])];
}

export function actions({ kind, node, part }, may) {
  if (kind === "c") return [link("/nodes/", "All nodes"), link("/activity/", "Activity")];
  if (kind === "n") return [link(`/nodes/${node.id}/`, "Node", "primary"), link(`/nodes/${node.id}/#charts`, "Charts")];
  if (kind === "g") return [...(!part && may.includes("assign") ? [link(`/nodes/${node.id}/#partitions`, "Make a partition", "primary")] : []), link(`/nodes/${node.id}/#charts`, "Charts"), link(`/nodes/${node.id}/`, "Node")];
  const list = [], other = { prefill: "decode", decode: "prefill" }[part.role];
  if (other && may.includes("assign")) list.push(link(`/board/?move=${part.id}:${part.deployment.id}:${other}`, `Flip to ${other}`, "primary"));
  if (may.includes("assign")) list.push(link(`/board/?pick=${part.id}`, "Move…", other ? "" : "primary"));
  if (part.deployment) list.push(link(`/deployments/${part.deployment.id}/?log=${part.id}#logs`, "Log"), link(`/deployments/${part.deployment.id}/#charts`, "Charts"));
  if (part.deployment && may.includes("assign")) list.push(link(`/partitions/${part.id}/release`, "Release"));
  return [...list, link(`/nodes/${node.id}/`, "Node")];
}
