// Parts that the server renders again and again grow old in silence where it does not answer, or not with the part: then
// the page's heading says so, why, and since when, until it is renewed again. Pages with a live view have a light of their
// own for a server that is lost. A request that somebody's typing asks for is told too, until the server answers anything.
import { el, text } from "./dom.js";
import { clock } from "./format.js";

const WHY = { 401: "you are signed out: reload the page", 403: "you are no longer allowed to see it", 404: "it is no longer there", 410: "it is no longer there" };
const SILENT = "the server does not answer", BROKEN = "the server answers with an error";
const heading = document.querySelector(".head h1");
const light = el("span", { class: "light", "data-state": "lost", role: "status" }); // empty at first: words put in later are read out
const failing = new Map(), renewed = new Map(); // by path: {elt, why} of what failed last, and when it last came
const loaded = performance.timeOrigin + (performance.getEntriesByType("navigation")[0]?.responseStart ?? 0);
const skew = Number(document.documentElement.dataset.at) * 1000 - loaded; // ms the server's clock is ahead of the browser's
const now = () => Date.now() + (Number.isFinite(skew) ? skew : 0);
const began = now();

const pathOf = ({ detail }) => (detail.pathInfo?.requestPath || "").split("?")[0];
const isPoll = ({ requestConfig: asked }) => !asked.triggeringEvent && (asked.elt.getAttribute("hx-trigger") ?? "").includes("every");

function lost(event, why) {
  failing.set(pathOf(event), { elt: event.detail.requestConfig.elt, poll: isPoll(event.detail), why });
  tell();
}

function heard(event, isPart) {
  for (const [path, one] of failing) if (!one.poll) failing.delete(path);
  if (isPart) { failing.delete(pathOf(event)); renewed.set(pathOf(event), now()); }
  tell();
}

function tell() {
  for (const [path, { elt }] of failing) if (!elt.isConnected) failing.delete(path);
  const told = [...failing].filter(([, { why }]) => !(document.getElementById("light") && [SILENT, BROKEN].includes(why)));
  const since = Math.min(...told.map(([path]) => renewed.get(path) ?? began)), why = told.at(-1)?.[1].why;
  const words = !told.length ? "" : told.at(-1)[1].poll ? `not renewed since ${clock(since / 1000)}, ${why}` : why;
  if (!words) light.replaceChildren();
  else if (!light.firstChild) light.append(el("i"), el("span", {}, words));
  else text(light.lastChild, words);
}

if (heading) {
  heading.after(light);
  for (const kind of ["htmx:sendError", "htmx:timeout"]) document.body.addEventListener(kind, (event) => lost(event, SILENT));
  document.body.addEventListener("htmx:afterRequest", (event) => {
    const { status } = event.detail.xhr, polled = isPoll(event.detail);
    if (!status) return; // sendError and timeout say it
    if (status >= 500) lost(event, BROKEN);
    else if (polled && WHY[status]) { heard(event, false); lost(event, WHY[status]); } else heard(event, true);
  });
}
