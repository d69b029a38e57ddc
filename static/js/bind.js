// Puts live values into server-rendered pages: an element says what it shows by data-live="kind:id:key".
// What changes the shape of a page is not patched here: the page asks the server for that part again.
import { el, text } from "./dom.js";
import { UNKNOWN, age, bytes, number, percent, unit } from "./format.js";
import { ageOf, isStale, now, show, silence, start, store, subscribe } from "./live.js";
import { words } from "./map.js";

const CHIPS = { ready: "ok", starting: "busy", pending: "busy", draining: "warn", stopping: "warn", cordoned: "warn", drained: "warn", silent: "warn", crash_looping: "bad", lost: "bad", revoked: "bad" };
const MOST = 100, MARGIN = 600;
const NODE = {
  age: (n) => age(ageOf(n)), cpu: (n) => percent(n.host?.cpu_utilization), disk: (n) => bytes(n.host?.disk_free_bytes),
  memory: (n) => (n.host ? `${bytes(n.host.memory_used_bytes)} of ${bytes(n.host.memory_bytes)}` : UNKNOWN),
  skew: (n) => (n.skew_s === null ? UNKNOWN : `${(Math.round((n.skew_s || 0) * 100) / 100 || 0).toFixed(2)} s`), held: (n) => `${n.observed_generation}`,
};
const PART = {
  running: (p) => (p.engine ? `${number(p.engine.running)}${p.engine.waiting ? ` + ${number(p.engine.waiting)}` : ""}` : UNKNOWN), kv: (p) => percent(p.engine?.kv_usage),
  out: (p) => unit(p.engine?.generation_tps, "tok/s"), ttft: (p) => unit(p.engine?.ttft_ms, "ms"), itl: (p) => unit(p.engine?.itl_ms, "ms", 1),
  age: (_p, n) => age(ageOf(n)), since: (p, n) => since(p, n),
};
const GPU = {
  utilization: (g) => percent(g.utilization), memory: (g) => `${bytes(g.memory_used_bytes)} of ${bytes(g.memory_bytes)}`,
  temperature: (g) => unit(g.temperature_c, "°C"), power: (g) => unit(g.power_w, "W"),
};

/** Seconds in this phase go on counting while the node is heard; of a start, beside what the last one took. Of one that is
 *  lost it is not the phase's age that counts, but the data's, which stands beside it. */
export function since(part, node) {
  if (part.since_s === null || part.since_s === undefined || ["ready", "unassigned", "lost"].includes(part.status)) return "";
  const seconds = isStale(node) ? part.since_s : part.since_s + Math.max(0, now() - (part.read_at ?? now()));
  const usual = part.status === "starting" && part.ready_after_s ? ` of about ${number(part.ready_after_s, 1)} s` : "";
  return `for ${age(seconds)}${usual}`;
}

/** `everything`: for a page that shows more live values than its data-live elements. */
export function bind({ shapeOf, onMove = () => {}, onChange = () => {}, everything = false }) {
  let shape = null;
  const draw = () => {
    const parts = new Map(), gpus = new Map();
    store.nodes.forEach((node) => {
      node.partitions.forEach((part) => parts.set(String(part.id), [part, node]));
      node.gpus.forEach((gpu) => gpus.set(String(gpu.id), [gpu, node]));
    });
    const boxes = [...document.querySelectorAll("[data-live]")];
    if (!everything) show({ detail: shown(boxes, parts, gpus) });
    let restated = false;
    boxes.forEach((box) => {
      const [kind, id, key] = box.dataset.live.split(":");
      if (kind === "node") { restated = fillNode(box, store.nodes.get(Number(id)), key) || restated; return undefined; }
      const [thing, node] = (kind === "part" ? parts : gpus).get(id) || [];
      if (!thing) return undefined;
      text(box, (kind === "part" ? PART : GPU)[key](thing, node));
      return box.classList.toggle("faint", isStale(node));
    });
    if (restated) document.dispatchEvent(new Event("rows-restated")); // a filter may be for a status
  };
  subscribe((change) => {
    stamp(change);
    const next = shapeOf([...store.nodes.values()]);
    if (shape !== null && next !== shape) onMove();
    shape = next;
    draw();
    onChange(change);
  });
  document.body.addEventListener("htmx:afterSwap", draw);
  setInterval(draw, 1000);
  if (everything) show({ detail: "all" });
  start();
}

/** The nodes that live values are of; of a long list those near the window that no filter hides. */
function shown(boxes, parts, gpus) {
  const nodesOf = (list) => [...new Set(list.map((box) => {
    const [kind, id] = box.dataset.live.split(":");
    return kind === "node" ? Number(id) : (kind === "part" ? parts : gpus).get(id)?.[1].id;
  }))].filter((id) => store.nodes.has(id));
  const all = nodesOf(boxes);
  if (all.length <= MOST) return all;
  const near = ({ top, bottom }) => bottom > -MARGIN && top < innerHeight + MARGIN;
  return nodesOf(boxes.filter((box) => box.getClientRects().length && near(box.getBoundingClientRect()))).slice(0, MOST);
}

function stamp(change) {
  (change.all ? [...store.nodes.values()] : change.nodes).forEach((node) => node.partitions.forEach((part) => { part.read_at = now(); }));
}

/** Whether it says another status than before. */
function fillNode(box, node, key) {
  if (!node) return false;
  if (key !== "status") { text(box, NODE[key](node)); box.classList.toggle("faint", isStale(node) && key !== "age"); return false; }
  const status = isStale(node) && node.status === "ready" ? "silent" : node.status;
  const label = status === "silent" && node.seen !== null ? silence(node) : words(status);
  if (box.textContent === label) return false;
  box.replaceChildren(el("span", { class: `chip ${CHIPS[status] || "idle"}` }, label));
  return true;
}

/** What a page's server-rendered parts depend on. */
export const partShape = (part, node) => [node.id, part.id, part.name, part.status, part.confirmed, part.role, part.deployment?.id, part.gpus.join(), part.restarts, part.message];
export const moved = () => window.htmx?.trigger(document.body, "fleet-moved");
