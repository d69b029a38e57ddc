// Where to: a list of all lanes, filtered by what is typed.
import { el, glyph } from "./dom.js";
import { plural } from "./format.js";

const dialog = document.getElementById("chooser"), input = dialog.querySelector("input"), list = dialog.querySelector("ul");
let offered = [], shown = [], at = 0, chosen = () => {};

export function choose(lanes, names, role, done) {
  offered = lanes;
  chosen = done;
  dialog.querySelector("[data-what]").textContent = names.length === 1 ? names[0] : plural(names.length, "partition");
  input.value = role;
  dialog.showModal();
  draw();
}

function draw() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = offered.filter(({ label }) => words.every((word) => begins(label.toLowerCase(), word)));
  at = 0;
  list.replaceChildren(...shown.map(({ key, label }, i) => el("li", { role: "option", id: `lane-${i}`, on: { click: () => pick(i) } }, key.includes(":") ? glyph(key.split(":")[1]) : null, el("span", {}, label))));
  if (!shown.length) list.append(el("li", { class: "muted" }, "No lane by that name"));
  mark();
}

/** Whether a word of the label begins so: "code" is not meant to find "decode". */
function begins(label, word) {
  let at = label.indexOf(word);
  while (at > 0 && /[a-z0-9]/.test(label[at - 1])) at = label.indexOf(word, at + 1);
  return at >= 0;
}

function mark() {
  list.querySelectorAll("[role=option]").forEach((li, i) => { li.setAttribute("aria-selected", String(i === at)); if (i === at) li.scrollIntoView({ block: "nearest" }); });
  input.setAttribute("aria-activedescendant", `lane-${at}`);
}

function pick(i) {
  if (!shown[i]) return;
  dialog.close();
  chosen(shown[i].key);
}

input.addEventListener("input", draw);
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && shown.length) { event.preventDefault(); at = (at + step + shown.length) % shown.length; mark(); }
  if (event.key === "Enter") { event.preventDefault(); pick(at); }
});
