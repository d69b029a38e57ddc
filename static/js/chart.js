// One figure of a page: what it asks for, how it stands (loading, empty, failed, old), its legend with values, its table.
import { el, text } from "./dom.js";
import { age, clock, fromAxis } from "./format.js";
import { now } from "./live.js";
import { save, table } from "./charttable.js";
import { plot, room } from "./plot.js";
import { heatLegend, lineLegend } from "./legend.js";
import { isKnown, joined, newest, picture, samples, stepOf } from "./samples.js";
import { tail } from "./tails.js";
import { bounds, isLive } from "./timerange.js";

const AGAIN_S = 10, BUSY_MS = 120, slow = matchMedia("(prefers-reduced-motion: reduce)");

export class Chart {
  constructor(figure, group) {
    const { metrics, shape = "lines", role, slo, ask = "", title, empty } = figure.dataset;
    Object.assign(this, { figure, group, shape, role, ask, title, empty, metrics: metrics.split(" "), slo: Number(slo) || null, visible: false, bodies: null, loadedAt: 0, askedAt: 0, drawnAt: 0, failed: "", only: null, asked: 0 });
    this.box = figure.querySelector(".plot");
    this.box.append(this.canvas = el("div"), this.line = el("div", { class: "cross", hidden: true }, el("b")), this.none = el("p", { class: "none", hidden: true }));
    figure.querySelector("details").addEventListener("toggle", () => this.fillTable());
    figure.querySelector("[data-csv]").addEventListener("click", () => { if (this.picture) save(`${group.name} ${title}`, this.picture); });
    this.say("loading", "loading");
  }

  /** All of the range anew. Of two that are on their way the later counts. */
  async load() {
    const [from, to] = bounds(), turn = ++this.asked;
    if (!this.bodies) this.say("loading", "loading");
    await this.fetched(() => this.query(from, to, stepOf(from, to)), (bodies) => { if (turn === this.asked) this.bodies = bodies; });
    if (turn === this.asked) this.draw();
  }

  /** The newest stretch, when a step has gone by; what happened since then as the live view tells it. */
  async follow() {
    if (!this.bodies || this.failed) { if (now() - this.askedAt > AGAIN_S) await this.load(); return; }
    const { step, to } = this.bodies[0], [from, until] = bounds(), turn = this.asked;
    if (until - to >= step + 4 && now() - this.askedAt > Math.max(AGAIN_S, (until - from) / 240)) {
      await this.fetched(() => this.query(to - 2 * step, until, step), (tails) => {
        if (turn !== this.asked) return;
        if (tails.some((body) => body.step !== step)) this.bodies = null; else this.bodies = this.bodies.map((body, i) => joined(body, tails[i], from));
      });
      if (!this.bodies) await this.load();
    }
    const every = slow.matches ? AGAIN_S : Math.max(1, (until - from) / 600, this.group.cost / BUSY_MS); // a line moves when it moves by a pixel
    if (now() - this.drawnAt >= every) this.draw();
  }

  query(from, to, step) {
    const range = `from=${Math.floor(from)}&to=${Math.ceil(to)}&step=${step}`;
    return Promise.all(this.metrics.map((metric) => samples(`${this.group.subject}&metric=${metric}${this.ask}&${range}`)));
  }

  async fetched(ask, keep) {
    this.askedAt = now();
    try { keep(await ask()); this.failed = ""; this.loadedAt = now(); } catch (error) { this.failed = error.message; }
  }

  /** One drawing at a time; what is asked meanwhile is one more, after it. */
  async draw() {
    if (this.drawing) { this.again = true; return; }
    this.drawing = true;
    try { await this.paint(); } finally { this.drawing = false; }
    if (this.again) { this.again = false; await this.draw(); }
  }

  async paint() {
    if (this.bodies) this.picture = tail(picture(this.bodies, { roleOf: this.group.roleOf(this.role), shape: this.shape }), this.shape);
    this.state();
    if (!this.picture || !this.visible) { this.drawnAt = 0; return; }
    const width = room(this.box);
    if (!width) { this.drawnAt = 0; return; } // `sized` draws it once it has a place
    Object.assign(this, { drawnAt: now(), width });
    const [from, to] = bounds(), { lines } = this.picture, heat = this.isHeat;
    const height = heat ? Math.min(260, Math.max(this.group.height, 32 + 18 * lines.length)) : this.group.height;
    try { this.took = await plot(this.canvas, this.picture, { heat, from, to, height, width, only: this.only, slo: this.slo, known: isKnown(this.picture) }); } catch (error) { this.failed = error.message; this.state(); return; }
    this.wire();
    this.legend();
    if (this.figure.querySelector("details").open) this.fillTable();
    this.group.drawn(this);
  }

  get isHeat() { return this.shape === "heat" && this.picture.lines.length > 0; }

  state() {
    const known = this.picture && isKnown(this.picture);
    this.none.hidden = !this.picture || known;
    text(this.none, this.empty || "No samples in this range.");
    if (this.failed) { this.say("error", this.picture ? `not renewed since ${clock(this.loadedAt)}: ${this.failed}` : `not loaded: ${this.failed}`, true); return; }
    if (!this.picture) return;
    const last = known ? newest(this.picture) : null, old = isLive() && last !== null && now() - last > Math.max(60, 3 * this.picture.step);
    this.say(!known ? "empty" : old ? "stale" : "good", old ? `last sample ${age(now() - last)} ago` : "");
  }

  say(state, words, again = false) {
    const box = this.figure.querySelector("[data-said]");
    this.figure.dataset.state = state;
    if (box.dataset.words === words) return;
    box.dataset.words = words;
    box.replaceChildren(words, ...(again ? [" ", el("button", { class: "link", type: "button", on: { click: () => this.load() } }, "Try again")] : []));
  }

  /** Once: drags that Plotly takes are the range of all charts. */
  wire() {
    if (this.wired) return;
    this.wired = true;
    this.canvas.on("plotly_relayout", (change) => { const a = change["xaxis.range[0]"], b = change["xaxis.range[1]"]; if (a && b) this.group.zoom(fromAxis(a), fromAxis(b)); });
  }

  legend(at = null, row = null) {
    const box = this.figure.querySelector(".legend");
    if (this.isHeat) heatLegend(box, this.picture, at, row);
    else lineLegend(box, this.picture, { at, only: this.only, slo: this.slo, onPick: (i) => { this.only = this.only === i ? null : i; this.draw(); } });
  }

  /** The line at a moment, `words` beside it; null takes it away. */
  cross(at, words = "", row = null) {
    const axis = this.canvas._fullLayout?.xaxis;
    const [from, to] = bounds(), shown = axis && at !== null && at >= from && at <= to;
    this.line.hidden = !shown;
    if (shown) {
      const x = axis._offset + ((at - from) / (to - from)) * axis._length;
      this.line.style.left = `${x}px`;
      this.line.firstChild.classList.toggle("left", x > this.box.clientWidth * 0.6);
      text(this.line.firstChild, words);
    }
    if (this.picture && this.visible) this.legend(shown ? at : null, row);
  }

  /** The moment (and row of a heat map) under a pointer. */
  place(event) {
    const axes = this.canvas._fullLayout, box = this.canvas.getBoundingClientRect(), [from, to] = bounds();
    if (!axes?.xaxis) return null;
    const share = (event.clientX - box.left - axes.xaxis._offset) / axes.xaxis._length, down = (event.clientY - box.top - axes.yaxis._offset) / axes.yaxis._length;
    if (share < 0 || share > 1) return null;
    const row = this.isHeat && down >= 0 && down < 1 ? Math.floor(down * this.picture.lines.length) : null;
    return { at: from + share * (to - from), row, near: ((to - from) / axes.xaxis._length) * 7 };
  }

  fillTable() {
    const open = this.figure.querySelector("details").open;
    if (open && this.picture) this.figure.querySelector("[data-table]").replaceChildren(table(this.title, this.picture));
  }
}
