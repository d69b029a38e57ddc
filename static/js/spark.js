// Small charts for the panel: drawn once a selection, and every ten seconds after that.
import { el, text } from "./dom.js";
import { now } from "./live.js";
import { plot, room } from "./plot.js";
import { isKnown, newest, picture, samples, show } from "./samples.js";
import { valueAt } from "./legend.js";

const SPAN_S = 3600, EVERY_MS = 10000;
let last = "", timer = null, places = null;

/** `wanted`: [subject, metric, words, shape] of each, as samples are asked for. */
export function sparks(box, wanted) {
  const sign = wanted.join("|");
  if (sign === last) return;
  last = sign;
  clearInterval(timer);
  places?.disconnect();
  const figures = wanted.map(() => el("figure", {}, el("figcaption"), el("div")));
  box.replaceChildren(...figures);
  const draw = () => wanted.forEach((one, i) => spark(figures[i], one, () => sign === last));
  if (!wanted.length) return;
  draw();
  places = new ResizeObserver((entries) => entries.forEach(({ target }) => { if (target.dataset.width && room(target) && room(target) !== Number(target.dataset.width)) draw(); }));
  figures.forEach((figure) => places.observe(figure.lastChild));
  timer = setInterval(() => { if (!document.hidden) draw(); }, EVERY_MS);
}

async function spark(figure, [subject, metric, words, shape], isWanted) {
  const [caption, place] = figure.children, to = Math.floor(now());
  if (!caption.textContent) text(caption, `${words}, last hour: loading`);
  try {
    const seen = picture([await samples(`${subject}&metric=${metric}${shape ? `&shape=${shape}` : ""}&from=${to - SPAN_S}&to=${to}&step=20`)]);
    if (!isWanted()) return;
    if (!isKnown(seen)) { text(caption, `${words}: no samples in the last hour`); place.replaceChildren(); return; }
    const width = room(place);
    place.dataset.width = width;
    if (width) await plot(place, seen, { from: to - SPAN_S, to, height: 92, width, bare: true });
    text(caption, `${words}, last hour${said(seen)}`);
  } catch (error) {
    if (isWanted()) text(caption, `${words}: not available, ${error.message}`);
  }
}

/** The newest value of a single line; of several the chart alone speaks. */
function said(seen) {
  if (seen.lines.length !== 1 || seen.bands.length) return "";
  return `: ${show(valueAt(seen.lines[0].points, newest(seen), seen.step, 1), seen.unit)}`;
}
