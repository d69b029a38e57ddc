// A small chart for the panel, drawn once a selection and every ten seconds after that.
import { now } from "./live.js";
import { plot } from "./plot.js";
import { isKnown, picture, samples } from "./samples.js";

const SPAN_S = 3600, EVERY_MS = 10000;
let last = "", timer = null;

/** `subject` and `metric` as the samples are asked for; `words` say what it is. */
export function spark(box, subject, metric, words) {
  const query = `${subject}&metric=${metric}`;
  if (query === last) return;
  last = query;
  clearInterval(timer);
  box.hidden = false;
  const caption = box.querySelector("figcaption");
  caption.textContent = `${words}, last hour: loading`;
  const draw = async () => {
    const to = Math.floor(now());
    try {
      const seen = picture([await samples(`${query}&from=${to - SPAN_S}&to=${to}&step=20`)]);
      if (query !== last) return;
      const place = box.querySelector("[data-plot]");
      await plot(place, seen, { from: to - SPAN_S, to, height: 104, width: place.clientWidth, bare: true });
      caption.textContent = isKnown(seen) ? `${words}, last hour` : `${words}: no samples in the last hour`;
    } catch (error) {
      if (query === last) caption.textContent = `${words}: not available, ${error.message}`;
    }
  };
  draw();
  timer = setInterval(() => { if (!document.hidden) draw(); }, EVERY_MS);
}
