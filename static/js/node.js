// One node: live values, its partitions asked for anew when they change, charts over a range kept in the address.
import { bind, moved, partShape } from "./bind.js";
import { large, samples, table } from "./charts.js";
import { store } from "./live.js";
import { follow } from "./logs.js";

const page = document.getElementById("page"), id = Number(page.dataset.node);
const RANGES = { "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400 };
const url = new URLSearchParams(location.search);
let range = RANGES[url.get("range")] ? url.get("range") : "1h";
let fixed = Number(url.get("from")) && Number(url.get("to")) ? [Number(url.get("from")), Number(url.get("to"))] : null;

function bounds() {
  const to = Math.floor(Date.now() / 1000);
  return fixed || [to - RANGES[range], to];
}

function remember() {
  const query = new URLSearchParams(location.search);
  ["range", "from", "to"].forEach((key) => query.delete(key));
  if (fixed) { query.set("from", Math.round(fixed[0])); query.set("to", Math.round(fixed[1])); } else if (range !== "1h") query.set("range", range);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  document.querySelectorAll("[data-range]").forEach((b) => b.setAttribute("aria-pressed", String(!fixed && b.dataset.range === range)));
}

async function drawAll() {
  const [from, to] = bounds();
  await Promise.all([...document.querySelectorAll(".chart")].map((figure) => drawOne(figure, from, to)));
}

async function drawOne(figure, from, to) {
  const note = figure.querySelector("[data-note]"), plot = figure.querySelector(".plot");
  try {
    const step = Math.max(1, Math.round((to - from) / 360));
    const body = await samples(`node=${id}&metric=${figure.dataset.metric}&from=${Math.round(from)}&to=${Math.round(to)}&step=${step}`);
    const empty = !body.series.some((s) => s.points.some((p) => p[1] !== null));
    note.textContent = empty ? "no samples in this range" : "";
    await large(plot, body, { from, to, onRange: (a, b) => { fixed = [a, b]; remember(); drawAll(); } });
    figure.querySelector("[data-table]").replaceChildren(table(body));
  } catch (error) {
    note.textContent = `not available: ${error.message}`;
  }
}

document.getElementById("ranges").addEventListener("click", (event) => {
  if (!event.target.dataset.range) return;
  range = event.target.dataset.range;
  fixed = null;
  remember(); drawAll();
});
document.addEventListener("forebay:theme", drawAll);
setInterval(() => { if (!fixed && !document.hidden) drawAll(); }, 10000);

const mine = (nodes) => nodes.filter((node) => node.id === id);
bind({
  shapeOf: (nodes) => JSON.stringify(mine(nodes).flatMap((node) => node.partitions.map((part) => partShape(part, node)))),
  onMove: () => { moved(); drawAll(); },
  onChange: ({ removed }) => { if (removed?.includes(id) && !store.nodes.has(id)) location.href = "/nodes/"; },
});
follow();
remember();
drawAll();
