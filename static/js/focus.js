// Whoever works by keyboard keeps their place when a part of the page is drawn anew.
const HOLDS = "a[href], button, input, select, summary, [tabindex]";

/** Draws inside `box`; focus that sat there is put on what stands for the same thing afterwards. */
export function keepingFocus(box, draw, find = twin) {
  const held = box.contains(document.activeElement) ? document.activeElement : null;
  draw();
  if (held && !held.isConnected) find(box, held)?.focus({ preventScroll: true });
}

/** Replaces the children of `box` unless they would look the same: nothing under a pointer or a caret moves in vain. */
export function put(box, ...children) {
  const next = box.cloneNode(false);
  next.append(...children);
  if (!next.isEqualNode(box)) keepingFocus(box, () => box.replaceChildren(...next.childNodes));
}

/** Parts that the server renders again. */
export function keepThroughSwaps() {
  let held = null;
  document.body.addEventListener("htmx:beforeSwap", ({ detail }) => { held = detail.target.contains(document.activeElement) ? document.activeElement : null; });
  document.body.addEventListener("htmx:afterSwap", ({ detail }) => {
    if (held && !held.isConnected) twin(detail.target, held)?.focus({ preventScroll: true });
    held = null;
  });
}

/** What stands for a frame or name of the map after it was drawn anew: its GPU counts where the partition is gone. */
export function frameTwin(map, held) {
  const frame = held.closest(".part"), row = `.node[data-node="${held.closest(".node")?.dataset.node}"]`;
  if (!frame) return map.querySelector(`${row} a.name`);
  const { part, gpu } = frame.dataset, open = `${row} .part:not(.other)`;
  return map.querySelector(`${open}[data-part="${part}"][data-gpu="${gpu}"]`) || map.querySelector(`${open}[data-part="${part}"]`)
    || map.querySelector(`${open} .cell[data-gpu="${gpu}"]`)?.closest(".part") || tabStop(map);
}

/** The one frame of the map that Tab reaches; arrows go on from there. */
export function tabStop(map, frame) {
  const held = map.querySelector('.part[tabindex="0"]');
  if (!frame) return held;
  held?.setAttribute("tabindex", "-1");
  frame.setAttribute("tabindex", "0");
  return frame;
}

function twin(box, held) {
  const same = [...box.querySelectorAll(HOLDS)].filter((one) => sign(one) === sign(held));
  return same.find((one) => one.textContent === held.textContent) || same[0];
}

const sign = (one) => [one.tagName, one.id, ...["href", "name", "value", "aria-label"].map((name) => one.getAttribute(name))].join("\n");
