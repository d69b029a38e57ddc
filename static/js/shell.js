// On every page: keys, palette, help, theme, copying, and questions before what cannot be taken back.
import { el } from "./dom.js";
import { meant } from "./commands.js";
import { keepThroughSwaps } from "./focus.js";
import "./lost.js";
import "./rowfilter.js";

const palette = document.getElementById("palette"), help = document.getElementById("help");
const typing = (node) => node.closest?.("input, textarea, select, [contenteditable]");
let prefix = 0, items = null, shown = [], at = 0;

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openPalette(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || palette.open) return;
  if (event.key === "?") { event.preventDefault(); help.showModal(); return; }
  if (help.open) return;
  if (event.key === "/") { const filter = [...document.querySelectorAll("[data-filter]")].find((one) => !one.closest("[hidden]")); if (filter) { event.preventDefault(); filter.focus(); filter.select(); } return; }
  if (Date.now() - prefix < 1200) { prefix = 0; if (go(event.key)) event.preventDefault(); return; }
  if (event.key === "g") prefix = Date.now();
}, true);

/** On a phone the pages are a strip at the bottom, wider than the screen: the one that is open is to be seen in it. */
function showWhere() {
  const here = document.querySelector(".side nav a[aria-current]"), strip = here?.closest(".side > div");
  if (strip && strip.scrollWidth > strip.clientWidth) strip.scrollLeft = here.offsetLeft - (strip.clientWidth - here.offsetWidth) / 2;
}
showWhere();

function go(key) {
  const link = [...document.querySelectorAll(".side nav a")].find((a) => a.querySelector("kbd")?.textContent === `g ${key}`);
  if (link) location.href = link.href;
  return Boolean(link);
}

async function openPalette() {
  if (palette.open) return;
  palette.showModal();
  const input = palette.querySelector("input");
  input.value = "";
  items ??= [...pages(), ...themes()];
  list("");
  try {
    const response = await fetch(palette.dataset.url, { headers: { Accept: "application/json" } });
    if (response.ok) items = [...pages(), ...(await response.json()).items, ...themes()];
  } catch { /* offline: the pages alone can still be chosen */ }
  list(input.value);
}

const pages = () => [...document.querySelectorAll(".side nav a")].map((a) => ({ label: a.lastChild.nodeName === "KBD" ? a.childNodes[a.childNodes.length - 2].textContent.trim() : a.textContent.trim(), kind: "page", url: a.href }));
const themes = () => [["dark", "Dark theme"], ["light", "Light theme"], ["system", "Theme as the system"]].map(([value, label]) => ({ label, kind: "do", run: () => window.forebaySetTheme(value) }));

function list(query, offered = []) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  shown = [...offered, ...(items || []).filter((item) => words.every((word) => `${item.kind} ${item.label}`.toLowerCase().includes(word)))].slice(0, 40);
  at = 0;
  const box = palette.querySelector("ul");
  box.replaceChildren(...shown.map((item, i) => el("li", { role: "option", id: `palette-${i}`, on: { click: () => choose(i) } }, el("span", {}, item.label), el("span", {}, item.kind))));
  if (!shown.length) box.append(el("li", { class: "muted" }, "Nothing by that name"));
  select();
}

function select() {
  palette.querySelectorAll("[role=option]").forEach((li, i) => { li.setAttribute("aria-selected", String(i === at)); if (i === at) li.scrollIntoView({ block: "nearest" }); });
  palette.querySelector("input").setAttribute("aria-activedescendant", `palette-${at}`);
}

function choose(i) {
  const item = shown[i];
  if (!item) return;
  palette.close();
  if (item.run) item.run(); else location.href = item.url;
}

palette.querySelector("input").addEventListener("input", (event) => {
  const query = event.target.value;
  list(query);
  meant(palette.dataset.url, query, (offered) => { if (event.target.value === query) list(query, offered); });
});
palette.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && shown.length) { event.preventDefault(); at = (at + step + shown.length) % shown.length; select(); }
  if (event.key === "Enter") { event.preventDefault(); choose(at); }
});
for (const dialog of [palette, help]) dialog.addEventListener("click", (event) => { if (event.target === dialog || event.target.closest("[data-dismiss]")) dialog.close(); });
document.querySelector("[data-palette]")?.addEventListener("click", openPalette);

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const source = document.getElementById(copy.dataset.copy);
    try { await navigator.clipboard.writeText(source.textContent.trim()); copy.textContent = "Copied"; } catch { getSelection().selectAllChildren(source); copy.textContent = "Press Ctrl C"; }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  }
  const sure = event.target.closest("[data-sure]");
  if (sure && !confirm(sure.dataset.sure)) event.preventDefault();
  const theme = event.target.closest("[data-theme-choice]");
  if (theme) { window.forebaySetTheme(theme.dataset.themeChoice); markTheme(); }
});

function markTheme() {
  document.querySelectorAll("[data-theme-choice]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.themeChoice === document.documentElement.dataset.choice)));
}

const typed = document.querySelector("[data-confirm]"), confirmed = document.querySelector("[data-needs-confirm]");
if (typed && confirmed) {
  const check = () => { confirmed.disabled = typed.value !== typed.dataset.confirm; };
  typed.addEventListener("input", check);
  check();
}
markTheme();
keepThroughSwaps();
document.querySelector("[data-focus]")?.focus();
