// Repaints rows in slices between the browser's own frames, so that a thousand nodes never hold up a scroll.
const SLICE_MS = 5;
const waiting = new Set();
let asked = false, paint = () => {};

export function paintWith(fn) { paint = fn; }

export function paintSoon(row) {
  waiting.add(row);
  if (!asked) { asked = true; requestAnimationFrame(slice); }
}

function slice() {
  const until = performance.now() + SLICE_MS;
  asked = false;
  for (const row of waiting) {
    waiting.delete(row);
    paint(row);
    if (performance.now() > until) break;
  }
  if (waiting.size) { asked = true; requestAnimationFrame(slice); }
}
