// What the lines of a chart are and how much they say: at the cursor's moment, else the newest.
import { el, text } from "./dom.js";
import { put } from "./focus.js";
import { dash, hue, topOf } from "./plot.js";
import { gradient } from "./ramp.js";
import { show } from "./samples.js";

/** `only`: the one line that is drawn, or null; onPick(place) when a name is pressed. */
export function lineLegend(box, { lines, bands, unit, step }, { at, only, slo, onPick }) {
  const read = (points, i) => show(valueAt(points, at, step, i), unit);
  const rows = bands.flatMap((b) => [["median", read(b.points, 2), hue(0)], [`p10 to p90${b.count ? ` of ${b.count}` : ""}`, range(b.points, at, step, unit), `${hue(0)}60`]]);
  const names = [...rows.map(([label]) => label), ...lines.map((l) => l.label), slo ? "objective" : ""].join("\n");
  if (box.dataset.names !== `${names}\n${only}\n${hue(0)}`) {
    box.dataset.names = `${names}\n${only}\n${hue(0)}`;
    put(box, ...rows.map(([label, , colour]) => el("li", {}, swatch(colour), el("span", {}, label), el("b"))),
      ...lines.map((line, i) => el("li", {}, lines.length > 1 ? el("button", { type: "button", "aria-pressed": String(only === i), class: only !== null && only !== i ? "off" : "", title: only === i ? "show all again" : "show this alone" }, swatch(hue(i), dash(i)), el("span", {}, line.label)) : el("span", { class: "one" }, swatch(hue(i)), el("span", {}, line.label)), el("b"))),
      ...(slo ? [el("li", {}, swatch("var(--bad)", "6px,4px"), el("span", {}, "objective"), el("b", {}, show(slo, unit)))] : []));
    box.onclick = (event) => { const item = event.target.closest("button")?.parentElement; if (item) onPick([...box.children].indexOf(item) - rows.length); };
  }
  [...rows.map(([, value]) => value), ...lines.map((l) => read(l.points, 1))].forEach((value, i) => text(box.children[i].querySelector("b"), value));
}

export function heatLegend(box, { lines, unit, step }, at, row) {
  const top = topOf(lines, unit);
  const line = lines[row];
  box.onclick = null;
  delete box.dataset.names;
  put(box, el("li", {}, el("span", {}, "0"), el("i", { class: "scale", style: { background: gradient() } }), el("span", {}, show(top, unit))), el("li", {}, el("i", { class: "scale none" }), el("span", {}, "unknown")),
    ...(line && at !== null ? [el("li", {}, el("span", {}, line.label), el("b", {}, show(valueAt(line.points, at, step, 1), unit)))] : []));
}

const swatch = (colour, style = "solid") => el("i", { class: `key${style === "solid" ? "" : " dashed"}`, style: { "--k": colour } });
const range = (points, at, step, unit) => { const [low, high] = [valueAt(points, at, step, 1), valueAt(points, at, step, 3)]; return low === null ? "–" : `${show(low, unit)} to ${show(high, unit)}`; };

/** The value of the step that `at` lies in; of the newest known point where `at` is null. A gap has none. */
export function valueAt(points, at, step, i) {
  if (at === null) { for (let n = points.length - 1; n >= 0; n -= 1) if (points[n][i] !== null) return points[n][i]; return null; }
  let low = 0, high = points.length;
  while (low < high) { const middle = (low + high) >> 1; if (points[middle][0] <= at) low = middle + 1; else high = middle; }
  const point = points[low - 1];
  return point && at - point[0] < step * 1.5 ? point[i] : null;
}
