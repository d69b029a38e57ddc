// Figures as they come with the frames, whole numbers in fixed places, put where snapshots have them.
const scaled = (value, by) => (value === null ? null : value * by);
const PUT = {
  utilization: (gpu, v) => { gpu.utilization = scaled(v, 0.001); }, memory: (gpu, v) => { gpu.memory_used_bytes = scaled(v, 2 ** 20); },
  temperature: (gpu, v) => { gpu.temperature_c = v; }, power: (gpu, v) => { gpu.power_w = v; },
  kv: (part, v) => { if (part.engine || v !== null) part.engine = { ...part.engine, kv_usage: scaled(v, 0.001) }; },
};

/** Puts a frame's figures in; the ids of the nodes that got some. */
export function fill(nodes, { fill: name, cells, at }) {
  const ids = Object.keys(cells || {}).map(Number).filter((id) => nodes.has(id));
  ids.forEach((id) => {
    const node = nodes.get(id);
    (name === "kv" ? node.partitions : node.gpus).forEach((one, place) => PUT[name](one, cells[id][place] ?? null));
    node.filled = { ...node.filled, [name]: at };
  });
  return ids;
}
