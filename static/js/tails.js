// Between two sampling windows the live view knows more: its figures go on where the stored samples end.
import { isStale, store } from "./live.js";
import { isLive } from "./timerange.js";

const GPU = { utilization: "utilization", memory: "memory_used_bytes", power: "power_w", temperature: "temperature_c" };
const ENGINE = new Set(["running", "waiting", "kv_usage", "prompt_tps", "generation_tps"]);
const KEEP_S = 90;
const held = new Map(); // "metric:id" -> [[at, value], ...], one a frame that told something new

/** Called with each frame, so that nothing between two drawings is lost. */
export function note(nodes) {
  nodes.forEach((node) => {
    if (node.seen === null || node.seen === undefined || isStale(node) || node.seen - (node.whole_at ?? node.seen) > 1) return;
    node.gpus?.forEach((gpu) => Object.entries(GPU).forEach(([metric, key]) => keep(metric, gpu.id, node.seen, gpu[key])));
    node.partitions?.forEach((part) => { if (part.engine) ENGINE.forEach((metric) => keep(metric, part.id, node.seen, part.engine[metric])); });
  });
}

function keep(metric, id, at, value) {
  const key = `${metric}:${id}`, points = held.get(key) || held.set(key, []).get(key);
  if (points.length && at - points[points.length - 1][0] < 0.5) return;
  points.push([at, value ?? null]);
  while (points.length && points[0][0] < at - KEEP_S) points.shift();
}

/** `picture` with each line gone on; only where a step is short enough for a second to show. */
export function tail(picture, shape) {
  if (!isLive() || !store.online || shape !== "lines" || picture.step > 30) return picture;
  return { ...picture, lines: picture.lines.map((line) => {
    const [last] = line.points[line.points.length - 1] || [0];
    const more = (held.get(`${line.metric}:${line.id}`) || []).filter(([at]) => at > last + picture.step).map(([at, v]) => [at, v === null ? null : v * picture.by]);
    return more.length ? { ...line, points: [...line.points, ...more] } : line;
  }) };
}
