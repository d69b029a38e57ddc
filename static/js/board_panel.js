// Beside the board: what the draft would do, as the server says; applying it; the conflict when somebody was faster.
import * as draft from "./board_draft.js";
import { keepingFocus } from "./focus.js";

const panel = document.getElementById("plan"), conflict = document.getElementById("conflict");
let asking = null, timer = null, wanted = false; // wanted: the keyboard asked for the form before it was there

export function attach() {
  panel.dataset.words = draft.query();
  draft.onChange(() => {
    panel.querySelector("[type=submit]")?.setAttribute("disabled", ""); // it would apply what was planned before
    clearTimeout(timer);
    timer = setTimeout(refresh, 120);
  });
  document.addEventListener("submit", (event) => { const form = event.target.closest("form[data-apply]"); if (form) { event.preventDefault(); apply(form); } });
  document.addEventListener("click", (event) => {
    const away = event.target.closest("[data-remove]");
    if (away) { event.preventDefault(); draft.remove([Number(away.dataset.remove)]); }
    if (event.target.closest("[data-discard]")) { event.preventDefault(); conflict.close(); draft.clear(); }
    if (event.target.closest("[data-replan]")) { event.preventDefault(); conflict.close(); refresh(); }
  });
}

/** The preview of the draft as it is now, with what was typed below it. */
export async function refresh() {
  asking?.abort();
  asking = new AbortController();
  const asked = draft.query();
  panel.setAttribute("aria-busy", "true");
  try {
    const typed = [...new FormData(panel.querySelector("form[data-apply]") || undefined)].filter(([name]) => ["reason", "force", "confirm"].includes(name));
    const response = await fetch(`${panel.dataset.url}?${[asked, new URLSearchParams(typed)].join("&")}`, { headers: { "HX-Request": "true" }, signal: asking.signal });
    if (response.redirected || response.status === 401) { location.reload(); return; }
    if (!response.ok) throw new Error(`status ${response.status}`);
    const html = await response.text();
    panel.dataset.words = asked;
    show(html);
  } catch (error) {
    if (error.name !== "AbortError") panel.replaceChildren(failure("There is no preview: the server did not answer as it should. Nothing was changed; the draft is kept in the address."));
  }
}

export function show(html) {
  keepingFocus(panel, () => { panel.innerHTML = html; }, (box, held) => held.id && box.querySelector(`#${held.id}`)); // escaped by the server
  panel.setAttribute("aria-busy", "false");
  if (wanted) toForm();
}

/** To the reason; where the preview is still on its way, once it is here. */
export function toForm() {
  const input = panel.querySelector("form[data-apply] [name=reason]");
  wanted = draft.size() > 0 && (!input || panel.dataset.words !== draft.query());
  if (!wanted) input?.focus();
}

async function apply(form) {
  const button = [...form.elements].find((one) => one.type === "submit");
  button.disabled = true;
  try {
    const response = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { "HX-Request": "true" } });
    const next = response.headers.get("HX-Redirect");
    if (next) { location.assign(next); return; }
    if (response.status >= 500 || response.status === 403) throw new Error(`status ${response.status}`);
    const html = await response.text();
    if (response.headers.get("X-Conflict")) { conflict.innerHTML = html; conflict.showModal(); button.disabled = false; return; }
    show(html);
    panel.querySelector("[role=alert]")?.focus();
  } catch {
    button.disabled = false;
    panel.prepend(failure("The server did not answer. Whether the change was taken is not known: look at the list of changes before you try again."));
  }
}

/** Others changed something since the preview was made: perhaps nothing of it, so it stays, and can be made anew. */
export function behind(version) {
  const planned = panel.querySelector("[data-version]");
  if (!planned || version === null) return;
  const moved = version > Number(planned.dataset.version);
  planned.textContent = `planned on version ${planned.dataset.version}${moved ? `, the fleet is at ${version}` : ""}`;
  panel.querySelector("button[data-replan]").hidden = !moved;
}

function failure(words) {
  const note = document.createElement("div");
  note.className = "note bad";
  note.setAttribute("role", "alert");
  note.textContent = words;
  panel.setAttribute("aria-busy", "false");
  return note;
}
