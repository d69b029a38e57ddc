// The time range of a page: kept in the address and shared by all its charts, so that a link opens the same view.
import { now } from "./live.js";
import { el, text } from "./dom.js";
import { moment } from "./format.js";

export const RANGES = { "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "30d": 2592000 };
const USUAL = "1h", KEYS = ["range", "from", "to"], LEAST_S = 60;
const listeners = new Set();
let named = USUAL, fixed = null;
read();

/** Whether the range ends now and moves on. */
export const isLive = () => fixed === null;
export const onRange = (fn) => listeners.add(fn);

/** [from, to] in unix seconds. */
export function bounds() {
  if (fixed) return fixed;
  const to = Math.floor(now());
  return [to - RANGES[named], to];
}

export function choose(range) {
  if (!RANGES[range]) return;
  [named, fixed] = [range, null];
  remember();
}

/** A stretch that somebody dragged: kept until a range is chosen, or until Back. */
export function zoom(from, to) {
  const middle = (from + to) / 2, half = Math.max(to - from, LEAST_S) / 2;
  fixed = [Math.round(middle - half), Math.round(middle + half)];
  remember();
}

/** What of the address is the range's, for those who write the rest of it. */
export function kept(query = new URLSearchParams()) {
  KEYS.forEach((key) => query.delete(key));
  if (fixed) { query.set("from", fixed[0]); query.set("to", fixed[1]); } else if (named !== USUAL) query.set("range", named);
  return query;
}

/** The row of buttons: [data-range] chooses, [data-zoomed] says what was dragged and takes it back. */
export function bar(box) {
  box.addEventListener("click", (event) => {
    if (event.target.closest("[data-zoomed]")) choose(named);
    else if (event.target.dataset.range) choose(event.target.dataset.range);
  });
  const draw = () => {
    box.querySelectorAll("[data-range]").forEach((b) => b.setAttribute("aria-pressed", String(!fixed && b.dataset.range === named)));
    const back = box.querySelector("[data-zoomed]");
    back.hidden = !fixed;
    if (fixed) back.replaceChildren(words(fixed), el("span", { "aria-hidden": "true" }, " ×"));
    back.setAttribute("aria-label", fixed ? `${words(fixed)}: back to the last ${named}` : "");
    text(box.querySelector("[data-zone]"), "UTC");
  };
  onRange(draw);
  draw();
}

export function words([from, to]) {
  const day = { day: "numeric", month: "short" }, time = { hour: "2-digit", minute: "2-digit" };
  const oneDay = moment(from, day) === moment(to, day);
  return `${moment(from, { ...day, ...time })} – ${moment(to, oneDay ? time : { ...day, ...time })}`;
}

function read() {
  const url = new URLSearchParams(location.search), from = Number(url.get("from")), to = Number(url.get("to"));
  named = RANGES[url.get("range")] ? url.get("range") : USUAL;
  fixed = from > 0 && to - from >= 1 ? [from, to] : null;
}

function remember() {
  const query = kept(new URLSearchParams(location.search));
  history.pushState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  listeners.forEach((fn) => fn());
}

addEventListener("popstate", () => { read(); listeners.forEach((fn) => fn()); });
