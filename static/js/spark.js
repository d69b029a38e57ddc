// A small utilization chart for the panel, drawn once a selection and every ten seconds after that.
import { samples, small } from "./charts.js";

let last = "", timer = null;

export function spark(box, subject) {
  if (subject === last) return;
  last = subject;
  clearInterval(timer);
  const draw = async () => {
    const to = Math.floor(Date.now() / 1000);
    try {
      const body = await samples(`${subject}&metric=utilization&from=${to - 900}&to=${to}`);
      if (subject !== last) return;
      box.hidden = false;
      await small(box.querySelector("[data-plot]"), body);
      box.querySelector("figcaption").textContent = body.series.some((s) => s.points.some(([, value]) => value !== null)) ? "utilization, last 15 min" : "no samples in the last 15 min";
    } catch (error) {
      box.querySelector("figcaption").textContent = `chart not available: ${error.message}`;
    }
  };
  draw();
  timer = setInterval(draw, 10000);
}
