// What-if: reads what any number of slots would come to off the curves that came with the page, so that it answers at once.
import { ofSizes } from "./capacity_sizes.js";
import { el, text } from "./dom.js";
import { UNKNOWN, age, number } from "./format.js";

const $ = (id) => document.getElementById(id), HOUR = 24 * 30, DAY = 86_400, FIRST_S = 600, ENOUGH = 100;
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

/** What one curve answers: slots, idle ones on the mean, and cold activations an hour. Null slots: beyond its end. */
function read(part, cold, price, miss) {
  const gpus = part.gpus ?? 1, cost = ([, share, idle]) => price * gpus * idle + miss * share * part.activations_per_hour;
  const [slots, share, idle] = price > 0 && miss > 0 ? part.curve.reduce((a, b) => (cost(b) < cost(a) ? b : a)) : [slotsFor(part.curve, cold), cold, null];
  return { gpus, slots, idle: idle ?? (slots === null ? null : idleAt(part.curve, slots)), cold: share * part.activations_per_hour, last: part.curve[part.curve.length - 1][0] };
}

/** Each size has slots of its own; where all are of one GPU, the curve of all models answers. */
export function slotsBySize(one, cold, price, miss) {
  const parts = (one.by_size.length ? one.by_size : [one]).map((part) => read(part, cold, price, miss)), known = parts.every((part) => part.slots !== null);
  const sum = (of) => parts.reduce((total, part) => total + of(part), 0);
  return { parts, slots: known ? sum((part) => part.slots) : null, idle: known ? sum((part) => part.idle) : null, gpus: known ? sum((part) => part.slots * part.gpus) : null, cold: sum((part) => part.cold), over: sum((part) => part.slots ?? part.last) };
}

/** How many activations the curves are of, and between what their number an hour lies, 90% sure, as of a Poisson number. */
const seen = (one) => Math.round(one.activations_per_hour * one.days * 24), bounds = (count) => [Math.max(0, Math.sqrt(count) - 0.82) ** 2, (Math.sqrt(count + 1) + 0.82) ** 2];

function within(one) {
  const count = seen(one), per = one.activations_per_hour / count;
  return count > 0 && count < ENOUGH ? ` (${bounds(count).map((bound) => number(bound * per, 1)).join(" to ")})` : "";
}

/** Why an answer is not to be leaned on; nothing once a day and activations enough are on record. */
function rough(one) {
  const count = seen(one), short = one.days * DAY < DAY;
  if (!short && count >= ENOUGH) return "";
  const [low, high] = bounds(count), range = count ? `so few tell how many come in an hour to within ${(low / count).toFixed(1)} to ${(high / count).toFixed(1)} times, and slots follow that` : "so far nothing wakes";
  return `Rough: it is known by ${count} ${count === 1 ? "activation" : "activations"}${count < ENOUGH ? `; ${range}` : ""}.${short ? " Less than a day is on record: other hours may be busier." : ""}`;
}

/** What a first answer waits for. */
function missing() {
  const { now, recorded_since: since } = shown, left = since === null ? null : FIRST_S - (now - since);
  if (since === null) return "Nothing is on record yet. A gateway's first minutes begin the record; the first answer comes ten minutes later.";
  if (left > 0) return `The first answer comes once ten minutes are on record, in ${age(left)}.`;
  return "Ten minutes are on record. The first answer comes within a minute after something was asked; if it does not, the control worker is not running.";
}

function answer() {
  const one = shown?.standing.find((other) => String(other.keep_alive_s) === $("keep").value), cold = 10 ** Number($("risk").value);
  text($("risk-said"), `${(cold * 100).toPrecision(2)}%`);
  for (const id of ["risk", "keep", "price", "miss"]) $(id).disabled = !one;
  text($("what-note"), one ? rough(one) : missing());
  $("what-note").hidden = $("what-note").textContent === "";
  if (!one) { text($("what-from"), "not yet"); $("what").replaceChildren(); return; }
  const price = parseFloat($("price").value), miss = parseFloat($("miss").value), sized = one.by_size.length > 0;
  const all = sized ? one.by_size : [one], models = all.reduce((total, part) => total + part.models, 0), each = all.reduce((total, part) => total + part.models * (part.gpus ?? 1), 0), rate = all.reduce((total, part) => total + part.activations_per_hour, 0);
  const found = slotsBySize(one, cold, price, miss), { slots, idle } = found;
  text($("what-from"), `by ${age(one.days * DAY)}, ${models} ${models === 1 ? "model" : "models"}`);
  const facts = [
    [price > 0 && miss > 0 ? "Slots at the least cost" : "Slots to hold", slots === null ? `over ${found.over}` : number(slots)],
    ...(sized && slots !== null ? [["of them", ofSizes(found.parts) || "of 1 GPU"], ["GPUs that they have", number(found.gpus)]] : []),
    ["Idle slots, on the mean", idle === null ? UNKNOWN : number(idle, 1)],
    ["Activations in an hour", `${number(rate, 1)}${within(one)}`],
    ["of them cold", `${found.cold < 0.095 ? found.cold.toPrecision(1) : number(found.cold, 1)} (${((rate ? found.cold / rate : 0) * 100).toPrecision(2)}%)`],
    ["Slot-hours in 30 days", slots === null ? UNKNOWN : number(slots * HOUR)],
    ...(sized && slots !== null ? [["GPU-hours in 30 days", number(found.gpus * HOUR)]] : []),
    ["A slot for each model, always", number(models * HOUR)],
  ];
  if (price > 0 && slots !== null) facts.push(["Cost in 30 days", number(found.gpus * HOUR * price)], ["Saved against a slot for each", number((each - found.gpus) * HOUR * price)]);
  $("what").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

for (const id of ["risk", "keep", "price", "miss"]) $(id)?.addEventListener("input", () => { touched ||= id === "risk"; answer(); });
