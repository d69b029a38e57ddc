// What is foreseen by the GPUs that a model needs, of the Capacity page: each size has slots of its own.
import { el } from "./dom.js";
import { UNKNOWN } from "./format.js";

const AHEAD = [600, 3600, 86400];

/** 120 of 1 GPU, 14 of 2; nothing where all are of one. */
export function ofSizes(sizes) {
  const mine = sizes.filter((one) => one.slots);
  return mine.some((one) => one.gpus > 1) ? mine.map((one, i) => `${one.slots} of ${one.gpus}${i ? "" : one.gpus === 1 ? " GPU" : " GPUs"}`).join(", ") : "";
}

/** A row a size, the smallest first: what the pool has, what is to be held, and the most at once as forecast at 95 and 99%. */
export function bySize({ newest, held, levels }) {
  const sizes = [...new Set(newest.flatMap((one) => one.by_size.map((of) => of.gpus)))].sort((a, b) => a - b);
  document.getElementById("by-size").hidden = !sizes.length;
  document.getElementById("sizes").replaceChildren(...sizes.map((gpus) => row(gpus, newest, held?.sizes.find((one) => one.gpus === gpus), levels)));
}

function row(gpus, newest, held, levels) {
  const told = (horizon) => newest.find((one) => one.horizon_s === horizon)?.by_size.find((one) => one.gpus === gpus);
  const heads = [...document.getElementById("sizes").closest("table").tHead.rows[0].cells].map((head) => head.textContent); // over a cell on a phone
  const soon = AHEAD.map(told).find(Boolean), cell = (value, i) => el("td", { class: "num", "data-h": heads[i + 1] }, value ?? UNKNOWN);
  const most = (one) => (one ? [0.95, 0.99].map((level) => one.values[levels.indexOf(level)]).join(" / ") : null);
  const cells = [soon?.models, soon?.active, ...AHEAD.map((horizon) => most(told(horizon))), held?.slots, held?.there];
  return el("tr", {}, el("th", { scope: "row" }, `${gpus} ${gpus === 1 ? "GPU" : "GPUs"}`), ...cells.map(cell));
}
