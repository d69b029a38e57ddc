// The charts of a page or a part of it: one range, one cursor, one list of events; only what is seen is drawn anew.
import { Chart } from "./chart.js";
import { el, text } from "./dom.js";
import { moment } from "./format.js";
import { store, now, subscribe } from "./live.js";
import { isTrouble } from "./plot.js";
import { note } from "./tails.js";
import { bar, bounds, isLive, onRange, zoom } from "./timerange.js";

const SLEPT_S = 60, MOST_WORDS = 3;

/** Brings the figures inside `root` to life. data-subject: whose samples; `watch`: which nodes' frames go on from them. */
export function charts(root, { watch = () => true } = {}) {
  const group = new Group(root);
  subscribe(({ all, nodes }) => note((all ? [...store.nodes.values()] : nodes || []).filter(watch)));
  return group;
}

class Group {
  constructor(root) {
    Object.assign(this, { root, subject: root.dataset.subject, name: root.dataset.name, height: Number(root.dataset.height) || 180, zoom, at: null, wanted: null, tickedAt: now() });
    this.events = root.querySelector(".marks");
    this.said = root.querySelector("[data-read]");
    const ranges = root.querySelector("[data-ranges]");
    if (ranges) bar(ranges);
    this.charts = [...root.querySelectorAll(".chart")].map((figure) => new Chart(figure, this));
    const of = new Map(this.charts.map((chart) => [chart.figure, chart]));
    const sight = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => this.seen(of.get(target), isIntersecting)), { rootMargin: "150px" });
    const widths = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => this.sized(of.get(target.parentElement), contentRect.width)));
    this.charts.forEach((chart) => { sight.observe(chart.figure); widths.observe(chart.box); this.listen(chart); });
    onRange(() => this.reload());
    document.addEventListener("forebay:theme", () => this.redraw());
    setInterval(() => this.tick(), 1000);
    this.listenToEvents();
  }

  /** What of a series' ids belongs to a role, as the live view has it, else as the page was rendered. */
  roleOf(role) {
    if (!role) return () => true;
    const roles = store.ready ? Object.fromEntries([...store.nodes.values()].flatMap((node) => node.partitions || []).map((part) => [part.id, part.role])) : JSON.parse(this.root.dataset.roles || "{}");
    return (id) => id === null || id === undefined || roles[id] === role;
  }

  /** Milliseconds that all charts in sight take to draw: they are drawn so seldom that it is an eighth of the time. */
  get cost() { return this.charts.reduce((sum, chart) => sum + (chart.visible ? chart.took || 0 : 0), 0); }

  reload() { this.point(null); this.charts.forEach((chart) => { if (chart.visible) chart.load(); else chart.bodies = null; }); }

  redraw() { this.charts.forEach((chart) => chart.draw()); }

  seen(chart, visible) {
    chart.visible = visible;
    if (visible && !chart.bodies) chart.load(); else if (visible && !chart.drawnAt) chart.draw();
  }

  /** Drawn anew where its place is another than it was drawn for. */
  sized(chart, width) {
    if (chart.picture && chart.visible && Math.abs((chart.width ?? 0) - width) > 1) chart.draw();
  }

  tick() {
    const slept = now() - this.tickedAt > SLEPT_S;
    if (document.hidden) return;
    this.tickedAt = now();
    if (slept && isLive()) { this.reload(); return; }
    this.charts.forEach((chart) => { if (chart.visible && (isLive() || chart.failed) && !chart.busy) { chart.busy = true; chart.follow().finally(() => { chart.busy = false; }); } });
  }

  /** After a chart was drawn: the cursor again where it was, and the events below. */
  drawn(chart) {
    if (this.at !== null) chart.cross(this.at, this.wordsAt(this.at), chart === this.under ? this.row : null);
    this.list();
  }

  get marks() { return this.charts.find((chart) => chart.picture)?.picture.marks || []; }

  /** One cursor for all charts of the group; `chart` is the one under the pointer. */
  point(at, chart = null, row = null) {
    Object.assign(this, { at, under: chart, row });
    const words = at === null ? "" : this.wordsAt(at);
    this.charts.forEach((one) => { if (one.visible) one.cross(at, one === chart ? words : "", one === chart ? row : null); });
  }

  wordsAt(at) {
    const [from, to] = bounds(), near = this.marks.filter((mark) => Math.abs(mark.at - at) <= (this.near ?? (to - from) / 90));
    const told = near.slice(0, MOST_WORDS).map((mark) => mark.text);
    if (near.length > MOST_WORDS) told.push(`and ${near.length - MOST_WORDS} more`);
    return [named(at, to - from), ...told].join("\n");
  }

  listen(chart) {
    const { box } = chart;
    box.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" && event.buttons === 0) return;
      const place = chart.place(event);
      this.near = place?.near;
      if (this.wanted === null) requestAnimationFrame(() => { const next = this.wanted; this.wanted = null; this.point(next[0], chart, next[1]); });
      this.wanted = [place?.at ?? null, place?.row ?? null];
    });
    box.addEventListener("pointerleave", () => this.point(null));
    box.addEventListener("pointerdown", (event) => { if (event.pointerType === "touch") { const place = chart.place(event); if (place) this.point(place.at, chart, place.row); } });
    box.addEventListener("keydown", (event) => this.key(event, chart));
    box.addEventListener("blur", () => this.point(null));
  }

  /** Arrows walk through time (and down a heat map), Escape puts the cursor away; what is read is said. */
  key(event, chart) {
    if (event.ctrlKey || event.metaKey || event.altKey || !chart.picture) return;
    const [from, to] = bounds(), step = Math.max(chart.picture.step, Math.round((to - from) / 60)), at = this.at ?? to;
    const next = { ArrowLeft: at - step, ArrowRight: at + step, Home: from, End: to }[event.key], rows = chart.isHeat ? chart.picture.lines.length : 0;
    const row = { ArrowUp: (this.row ?? rows) - 1, ArrowDown: (this.row ?? -1) + 1 }[event.key];
    if (event.key === "Escape" && this.at !== null) { event.stopPropagation(); this.point(null); return; }
    if (next === undefined && (row === undefined || !rows)) return;
    event.preventDefault();
    this.near = step / 2;
    this.point(next === undefined ? at : Math.min(to, Math.max(from, next)), chart, row === undefined ? this.row : Math.min(rows - 1, Math.max(0, row)));
    text(this.said, `${this.wordsAt(this.at)}. ${[...chart.figure.querySelectorAll(".legend li")].map((li) => li.textContent).join(", ")}`);
  }

  list() {
    if (!this.events) return;
    const { marks } = this, sign = JSON.stringify(marks);
    if (this.events.dataset.sign === sign) return;
    this.events.dataset.sign = sign;
    this.events.hidden = !marks.length;
    text(this.events.querySelector("summary"), `${marks.length} event${marks.length === 1 ? "" : "s"} in this range`);
    const [from, to] = bounds(), held = this.events.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.events.querySelector("ol").replaceChildren(...[...marks].reverse().map((mark) => el("li", {}, el("button", { type: "button", "data-at": mark.at, class: isTrouble(mark) ? "bad" : "" }, el("time", {}, named(mark.at, to - from)), el("span", {}, mark.text)))));
    if (held) [...this.events.querySelectorAll("button")].find((button) => button.textContent === held)?.focus({ preventScroll: true });
  }

  /** An event that is pointed at, or has the focus, is shown in all charts. */
  listenToEvents() {
    const to = (event) => { const at = event.target.closest?.("[data-at]")?.dataset.at; this.near = 1; this.point(at ? Number(at) : null, this.charts.find((chart) => chart.visible)); };
    for (const type of ["pointerover", "focusin"]) this.events?.addEventListener(type, to);
    for (const type of ["pointerleave", "focusout"]) this.events?.addEventListener(type, () => this.point(null));
  }
}

const named = (at, span) => moment(at, { ...(span > 86400 ? { day: "numeric", month: "short" } : {}), hour: "2-digit", minute: "2-digit", ...(span <= 21600 ? { second: "2-digit" } : {}) });
