// Waits for the host that the token was made for: says so with its first report.
import { bind } from "./bind.js";
import { el } from "./dom.js";
import { store } from "./live.js";

const box = document.getElementById("waiting"), wanted = box.dataset.name;
let known = null;

bind({
  shapeOf: () => "",
  onChange: () => {
    const heard = [...store.nodes.values()].filter((node) => node.seen !== null);
    known ??= new Set(heard.map((node) => node.id));
    const fresh = heard.find((node) => (wanted ? node.name === wanted && node.status === "ready" : !known.has(node.id)));
    if (!fresh) return;
    box.className = "note ok";
    box.replaceChildren(el("b", {}, `${fresh.name} has joined.`), " It reported ", `${fresh.gpus.length} ${fresh.gpus.length === 1 ? "device" : "devices"}. `, el("a", { href: `/nodes/${fresh.id}/split` }, "Split it into partitions"));
  },
});
