// The list of nodes: values stay fresh; a node that comes, goes or changes reloads the list.
import { bind, moved } from "./bind.js";

bind({
  shapeOf: (nodes) => JSON.stringify(nodes.map((n) => [n.id, n.name, n.schedulable, n.draining, n.gpus.map((g) => [g.present, g.foreign, g.flag, g.health]), n.labels, n.partitions.map((p) => [p.id, p.role, p.deployment?.id, p.status === "crash_looping"])])),
  onMove: moved,
});
