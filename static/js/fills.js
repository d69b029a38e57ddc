// What a cell of the fleet map can be filled by: value, place on the ramp, words. Unknown stays unknown.
import { ageOf, isBehind } from "./live.js";
import { age, bytes } from "./format.js";

const known = (value) => value !== null && value !== undefined;
const share = (part, whole) => (known(part) && whole ? part / whole : null);

export const FILLS = {
  utilization: { label: "Utilization", unit: "%", lo: "0", hi: "100 %", value: (gpu) => gpu.utilization, place: (v) => v, show: (v) => `${Math.round(v * 100)}` },
  kv: { label: "KV cache", unit: "%", lo: "0", hi: "100 %", value: (_gpu, part) => part?.engine?.kv_usage, place: (v) => v, show: (v) => `${Math.round(v * 100)}` },
  memory: { label: "Memory", unit: "%", lo: "0", hi: "100 %", value: (gpu) => share(gpu.memory_used_bytes, gpu.memory_bytes), place: (v) => v, show: (v) => `${Math.round(v * 100)}` },
  temperature: { label: "Temperature", unit: "°C", lo: "20", hi: "95 °C", value: (gpu) => gpu.temperature_c, place: (v) => (v - 20) / 75, show: (v) => `${Math.round(v)}` },
  power: { label: "Power", unit: "W", lo: "0", hi: "1000 W", value: (gpu) => gpu.power_w, place: (v) => v / 1000, show: (v) => `${Math.round(v)}` },
  age: { label: "Data age", unit: "", lo: "0", hi: "10 s", value: (_gpu, _part, node) => ageOf(node), place: (v) => v / 10, show: (v) => age(v) },
};

export function read(fill, gpu, part, node) {
  const value = FILLS[fill].value(gpu, part, node);
  return known(value) ? value : null;
}

/** In words, as far as it is as new as the node's last report: of what the page does not show all is not sent. */
export function describe(gpu, part, node) {
  const told = (fill, value, words) => (known(value) && !isBehind(node, fill) ? [words(value)] : []);
  const lines = [`${node.name} GPU ${gpu.index}: ${gpu.name}`];
  if (part) lines.push(`${part.name}: ${part.deployment ? `${part.role} of ${part.deployment.name}${part.overflow ? ", lent by the pool" : ""}` : "not assigned"}`);
  lines.push(...told("utilization", gpu.utilization, (v) => `utilization ${Math.round(v * 100)}%`));
  lines.push(...told("kv", part?.engine?.kv_usage, (v) => `KV cache ${Math.round(v * 100)}%`));
  lines.push(...told("memory", gpu.memory_used_bytes, (v) => `memory ${bytes(v)} of ${bytes(gpu.memory_bytes)}`));
  lines.push(...told("temperature", gpu.temperature_c, (v) => `${Math.round(v)} °C`));
  lines.push(...told("power", gpu.power_w, (v) => `${Math.round(v)} W`));
  if (!gpu.present) lines.push("not in the last report");
  if (gpu.health !== "ok") lines.push(`health ${gpu.health}${gpu.health_detail ? `: ${gpu.health_detail}` : ""}`);
  if (gpu.flag) lines.push(`did not pass its qualification: ${gpu.flag}`);
  if (gpu.foreign) lines.push("a process of somebody else runs on it");
  lines.push(node.seen === null ? "never reported" : `reported ${age(ageOf(node))} ago`);
  return lines.join("\n");
}
