// One deployment: replicas asked for anew when they change, log, playground.
import { bind, moved, partShape } from "./bind.js";
import { follow } from "./logs.js";
import { playground } from "./playground.js";

const id = Number(document.getElementById("page").dataset.deployment);
bind({
  shapeOf: (nodes) => JSON.stringify(nodes.flatMap((node) => node.partitions.filter((part) => part.deployment?.id === id).map((part) => partShape(part, node)))),
  onMove: moved,
});
follow();
playground();
