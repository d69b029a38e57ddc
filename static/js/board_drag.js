// Dragging pieces with any pointer: a mouse at once, a finger after it has rested, so that the page can still be scrolled.
import { el } from "./dom.js";
import { plural } from "./format.js";

const HOLD_MS = 260, SLACK = 6, EDGE = 56;
let press = null; // {id, x, y, pointer, timer, carried, over}

export const isHeld = () => press !== null;

/** `take(id)` says which pieces go along; `drop(ids, lane)` what happens then. */
export function attach(board, { take, drop }) {
  board.addEventListener("pointerdown", (event) => {
    const piece = event.target.closest("[data-piece]");
    if (!piece || event.button !== 0 || event.target.closest("a, button") || press) return;
    press = { id: Number(piece.dataset.piece), x: event.clientX, y: event.clientY, pointer: event.pointerId };
    if (event.pointerType !== "mouse") press.timer = setTimeout(() => begin(take), HOLD_MS);
  });
  document.addEventListener("pointermove", (event) => {
    if (event.pointerId !== press?.pointer) return;
    if (!press.carried && Math.hypot(event.clientX - press.x, event.clientY - press.y) > SLACK) {
      if (event.pointerType !== "mouse") return end();
      begin(take);
    }
    if (press.carried) carry(event.clientX, event.clientY);
    return undefined;
  });
  document.addEventListener("pointerup", (event) => {
    if (event.pointerId !== press?.pointer) return;
    const { carried, over, ids } = press;
    end();
    if (!carried) return;
    document.addEventListener("click", swallow, true); // the one that ends the drag, where there is one
    setTimeout(() => document.removeEventListener("click", swallow, true), 0);
    if (over) drop(ids, over.dataset.lane);
  });
  document.addEventListener("pointercancel", (event) => { if (event.pointerId === press?.pointer) end(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && press?.carried) { event.preventDefault(); event.stopPropagation(); end(); } }, true);
  board.addEventListener("touchmove", (event) => { if (press?.carried) event.preventDefault(); }, { passive: false });
  board.addEventListener("contextmenu", (event) => { if (press?.carried || press?.timer) event.preventDefault(); });
  board.addEventListener("dragstart", (event) => event.preventDefault());
}

const swallow = (click) => { click.preventDefault(); click.stopPropagation(); };

function begin(take) {
  press.ids = take(press.id);
  if (!press.ids.length) { end(); return; }
  getSelection().removeAllRanges();
  const name = document.querySelector(`[data-piece="${press.id}"] b`)?.textContent || "";
  press.carried = el("div", { class: "carried", "aria-hidden": "true" }, press.ids.length === 1 ? name : plural(press.ids.length, "partition"));
  document.body.append(press.carried);
  document.body.classList.add("is-carrying");
  carry(press.x, press.y);
}

function carry(x, y) {
  press.carried.style.transform = `translate(${x + 10}px, ${y + 8}px)`;
  const over = document.elementFromPoint(x, y)?.closest("[data-lane]") || null;
  if (over !== press.over) { press.over?.classList.remove("over"); over?.classList.add("over"); press.over = over; }
  const step = y < EDGE ? -1 : y > innerHeight - EDGE ? 1 : 0;
  clearInterval(press.scroller);
  if (step) press.scroller = setInterval(() => scrollBy(0, step * 14), 16);
}

function end() {
  clearTimeout(press.timer);
  clearInterval(press.scroller);
  press.carried?.remove();
  press.over?.classList.remove("over");
  document.body.classList.remove("is-carrying");
  press = null;
  setTimeout(() => document.dispatchEvent(new Event("forebay:dropped")), 0); // after the click that ends it
}
