// One deployment: replicas asked for anew when they change, log, playground.
import { bind, moved, partShape } from "./bind.js";
import { charts } from "./charts.js";
import { follow } from "./logs.js";
import { playground } from "./playground.js";

const id = Number(document.getElementById("page").dataset.deployment);
const mine = (node) => node.partitions.some((part) => part.deployment?.id === id);
const drawn = charts(document.getElementById("charts"), { watch: mine });
bind({
  shapeOf: (nodes) => JSON.stringify(nodes.flatMap((node) => node.partitions.filter((part) => part.deployment?.id === id).map((part) => partShape(part, node)))),
  onMove: () => { moved(); drawn.reload(); },
});
follow();
playground();
