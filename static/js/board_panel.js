// Beside the board: what the draft would do, as the server says; applying it; the conflict when somebody was faster.
import * as draft from "./board_draft.js";

const panel = document.getElementById("plan"), conflict = document.getElementById("conflict");
let asking = null, timer = null;

export function attach() {
  draft.onChange(() => { clearTimeout(timer); timer = setTimeout(refresh, 120); });
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
  panel.setAttribute("aria-busy", "true");
  try {
    const typed = [...new FormData(panel.querySelector("form[data-apply]") || undefined)].filter(([name]) => ["reason", "force", "confirm"].includes(name));
    const response = await fetch(`${panel.dataset.url}?${[draft.query(), new URLSearchParams(typed)].join("&")}`, { headers: { "HX-Request": "true" }, signal: asking.signal });
    if (response.redirected || response.status === 401) { location.reload(); return; }
    show(await response.text());
  } catch (error) {
    if (error.name !== "AbortError") panel.replaceChildren(failure("The server does not answer, so there is no preview. Nothing was changed; the draft is kept in the address."));
  }
}

export function show(html) {
  panel.innerHTML = html; // the server's own template, escaped there
  panel.setAttribute("aria-busy", "false");
  window.htmx?.process(panel);
  document.dispatchEvent(new Event("forebay:plan"));
}

async function apply(form) {
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const response = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { "HX-Request": "true" } });
    const next = response.headers.get("HX-Redirect");
    if (next) { location.assign(next); return; }
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
