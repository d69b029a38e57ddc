// What-if: reads what any number of slots would come to off the curves that came with the page, so that it answers at once.
import { el, text } from "./dom.js";
import { UNKNOWN, age, number } from "./format.js";

const $ = (id) => document.getElementById(id), HOUR = 24 * 30;
let shown = null, touched = false;

export function whatIf(outlook) {
  shown = outlook;
  const keep = $("keep"), mine = keep.value || String(outlook.keep_alive_s);
  keep.replaceChildren(...outlook.standing.map((one) => el("option", { value: one.keep_alive_s, selected: String(one.keep_alive_s) === mine }, `${age(one.keep_alive_s)}${one.keep_alive_s === outlook.keep_alive_s ? " (in use)" : ""}`)));
  if (!touched) $("risk").value = Math.log10(outlook.most_cold);
  answer();
}

/** Slots between the points of a curve, by the share of cold activations: straight lines over its logarithm. */
export function slotsFor(curve, cold) {
  const place = curve.findIndex(([, share]) => share <= cold);
  if (place < 0) return null;
  if (place === 0) return curve[0][0];
  const [a, high] = curve[place - 1], [b, low] = curve[place], t = (Math.log(high) - Math.log(cold)) / (Math.log(high) - Math.log(Math.max(low, 1e-9)));
  return Math.ceil(a + (b - a) * Math.min(1, Math.max(0, t)) - 1e-9);
}

function idleAt(curve, slots) {
  const place = curve.findIndex(([at]) => at >= slots);
  if (place <= 0) return place === 0 ? curve[0][2] : curve[curve.length - 1][2];
  const [a, , low] = curve[place - 1], [b, , high] = curve[place];
  return low + ((high - low) * (slots - a)) / (b - a);
}

function answer() {
  const one = shown?.standing.find((other) => String(other.keep_alive_s) === $("keep").value), cold = 10 ** Number($("risk").value);
  text($("risk-said"), `${(cold * 100).toPrecision(2)}%`);
  for (const id of ["risk", "keep", "price", "miss"]) $(id).disabled = !one;
  if (!one) { text($("what-from"), "needs an hour of record"); $("what").replaceChildren(); return; }
  text($("what-from"), `by ${number(one.days, 1)} days, ${one.models} models`);
  const price = parseFloat($("price").value), miss = parseFloat($("miss").value), both = price > 0 && miss > 0;
  const cost = ([, share, idle]) => price * idle + miss * share * one.activations_per_hour;
  const best = both ? one.curve.reduce((a, b) => (cost(b) < cost(a) ? b : a)) : null;
  const slots = best ? best[0] : slotsFor(one.curve, cold), share = best ? best[1] : cold, idle = slots === null ? null : best ? best[2] : idleAt(one.curve, slots);
  const waits = one.activations_per_hour * share;
  const facts = [
    [best ? "Slots at the least cost" : "Slots to hold", slots === null ? `over ${one.curve[one.curve.length - 1][0]}` : number(slots)],
    ["Idle slots, on the mean", idle === null ? UNKNOWN : number(idle, 1)],
    ["Activations in an hour", number(one.activations_per_hour, 1)],
    ["of them cold", `${waits < 0.095 ? waits.toPrecision(1) : number(waits, 1)} (${(share * 100).toPrecision(2)}%)`],
    ["Slot-hours in 30 days", slots === null ? UNKNOWN : number(slots * HOUR)],
    ["A slot for each model, always", number(one.models * HOUR)],
  ];
  if (price > 0 && slots !== null) facts.push(["Cost in 30 days", number(slots * HOUR * price)], ["Saved against a slot for each", number((one.models - slots) * HOUR * price)]);
  $("what").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

for (const id of ["risk", "keep", "price", "miss"]) $(id)?.addEventListener("input", () => { touched ||= id === "risk"; answer(); });
