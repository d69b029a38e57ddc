// One node: live values, its partitions asked for anew when they change, charts over a range kept in the address.
import { bind, moved, partShape } from "./bind.js";
import { charts } from "./charts.js";
import { store } from "./live.js";
import { follow } from "./logs.js";

const page = document.getElementById("page"), id = Number(page.dataset.node);
const drawn = charts(document.getElementById("charts"), { watch: (node) => node.id === id });
const mine = (nodes) => nodes.filter((node) => node.id === id);
bind({
  shapeOf: (nodes) => JSON.stringify(mine(nodes).flatMap((node) => node.partitions.map((part) => partShape(part, node)))),
  onMove: () => { moved(); drawn.reload(); },
  onChange: ({ removed }) => { if (removed?.includes(id) && !store.nodes.has(id)) location.href = "/nodes/"; },
});
follow();
