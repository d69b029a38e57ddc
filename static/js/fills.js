// What a cell of the fleet map can be filled by: value, place on the ramp, words. Unknown stays unknown.
import { ageOf } from "./live.js";
import { UNKNOWN, age, bytes } from "./format.js";

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

export function describe(gpu, part, node) {
  const lines = [`${node.name} GPU ${gpu.index}: ${gpu.name}`];
  lines.push(`utilization ${known(gpu.utilization) ? `${Math.round(gpu.utilization * 100)}%` : UNKNOWN}`);
  lines.push(`memory ${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_bytes)}`);
  if (known(gpu.temperature_c)) lines.push(`${Math.round(gpu.temperature_c)} °C`);
  if (known(gpu.power_w)) lines.push(`${Math.round(gpu.power_w)} W`);
  if (!gpu.present) lines.push("not in the last report");
  if (gpu.health !== "ok") lines.push(`health ${gpu.health}${gpu.health_detail ? `: ${gpu.health_detail}` : ""}`);
  if (gpu.foreign) lines.push("a process of somebody else runs on it");
  return lines.join("\n");
}
