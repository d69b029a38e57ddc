// Parts that the server renders again and again grow old in silence where it does not answer: then the page's heading says
// so, and since when, until it answers again. Pages with a live view have a light of their own for that.
import { el } from "./dom.js";
import { clock } from "./format.js";

const heading = document.querySelector(".head h1"), failing = new Set();
const pathOf = ({ detail }) => (detail.pathInfo?.requestPath || "").split("?")[0];
let heardAt = Date.now(), light = null;

function lost(event) {
  failing.add(pathOf(event));
  if (light || !heading || document.getElementById("light")) return;
  light = el("span", { class: "light", "data-state": "lost", role: "status" }, el("i"), el("span", {}, `not renewed since ${clock(heardAt / 1000)}, the server does not answer`));
  heading.after(light);
}

function heard(event) {
  failing.delete(pathOf(event));
  if (failing.size) return;
  heardAt = Date.now();
  light?.remove();
  light = null;
}

for (const kind of ["htmx:sendError", "htmx:timeout"]) document.body.addEventListener(kind, lost);
document.body.addEventListener("htmx:afterRequest", (event) => { const { status } = event.detail.xhr; if (status >= 500) lost(event); else if (status) heard(event); });
