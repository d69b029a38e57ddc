// Follows one log: asks for what lies past the last piece, stays at the end unless somebody scrolled up or paused.
import { lineView } from "./loglines.js";
import { text } from "./dom.js";
import { plural } from "./format.js";

const EVERY_MS = 1500, BEFORE_BYTES = 4096;
const STATES = {
  live: () => "live",
  waiting: (empty) => (empty ? "waiting for the first lines" : "waiting for more"),
  silent: (empty) => (empty ? "the node is silent; nothing of this log came" : "the node is silent; this is the last that came"),
};

export function follow() {
  const box = document.getElementById("log"), tools = document.getElementById("log-tools");
  if (!box || !tools) return;
  const view = lineView(box), url = box.dataset.url, state = document.getElementById("log-state");
  const part = (name) => tools.parentElement.querySelector(`[data-log-${name}]`);
  let offset = -1, paused = false, stopped = false, past = false, asking = false;

  const ask = async () => {
    if (document.hidden || paused || stopped || past || asking) return;
    asking = true;
    try { take(await get({ offset })); } finally { asking = false; }
  };
  // What was answered, or null where it was an error that `state` now tells.
  async function get(asked) {
    try {
      const response = await fetch(`${url}?${new URLSearchParams(asked)}`, { headers: { Accept: "application/json" } });
      const body = await response.json().catch(() => ({}));
      if (response.ok) return body;
      fail(body.detail || `not available (status ${response.status})`);
      stopped = [401, 403, 404].includes(response.status);
    } catch {
      fail("server unreachable; trying again");
    }
    return null;
  }
  function fail(words) {
    state.classList.add("bad");
    text(state, words);
  }
  function take(body) {
    if (!body) return;
    state.classList.remove("bad");
    if (offset !== -1 && body.text && body.offset !== offset) view.note(body.offset > offset ? "… a piece is missing …" : "… the log began anew …");
    if (body.text) { view.add(body.text, body.levels, body.offset); offset = body.next_offset; counted(); }
    text(state, STATES[body.state]?.(view.count().of === 0) ?? body.state);
    part("newest").hidden = view.isAtEnd();
  }
  function counted() {
    const { hits, shown, of } = view.count(), search = part("search").value;
    text(part("count"), search ? plural(hits, "hit") : shown < of ? `${shown} of ${plural(of, "line")}` : "");
  }
  function choose() {
    view.choose({ search: part("search").value, level: part("level").value, only: part("only").checked });
    counted();
    part("newest").hidden = view.isAtEnd();
    link();
  }
  function pause(to) {
    paused = to;
    part("pause").setAttribute("aria-pressed", String(paused));
    text(part("pause"), paused ? "Resume" : "Pause");
    if (paused) text(state, "paused"); else ask();
  }
  // The address always says what is seen, so that it can be given to a colleague.
  function link(at) {
    const address = new URL(location.href);
    const say = (name, value) => (value ? address.searchParams.set(name, value) : address.searchParams.delete(name));
    say("find", part("search").value);
    say("level", part("level").value === "d" ? "" : part("level").value);
    if (at !== undefined) say("at", at);
    history.replaceState(null, "", address);
    part("download").href = `${url}?download=true${past ? "&previous=true" : ""}`;
  }
  function mark(line) {
    box.querySelector(".ln.at")?.classList.remove("at");
    line?.classList.add("at");
  }
  async function previous(to) {
    past = to;
    part("previous").setAttribute("aria-pressed", String(past));
    view.clear();
    offset = -1;
    link();
    if (!past) { ask(); return; }
    text(state, "asking for the engine before this one");
    const body = await get({ previous: "true" });
    if (!body || !past) return;
    if (body.text) view.add(body.text, body.levels, body.offset);
    view.toEnd();
    counted();
    text(state, body.text ? "the engine before this one, to its end" : "there was no engine before this one, or its log is gone");
  }

  part("search").addEventListener("input", choose);
  part("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const { at, of } = view.step(event.shiftKey ? -1 : 1);
    text(part("count"), of ? `${at} of ${plural(of, "hit")}` : "0 hits");
  });
  part("level").addEventListener("change", choose);
  part("only").addEventListener("change", choose);
  part("wrap").addEventListener("click", () => part("wrap").setAttribute("aria-pressed", String(!box.classList.toggle("nowrap"))));
  part("pause").addEventListener("click", () => pause(!paused));
  part("newest").addEventListener("click", () => { view.toEnd(); part("newest").hidden = true; box.focus(); });
  part("previous")?.addEventListener("click", () => previous(!past));
  box.addEventListener("scroll", () => { part("newest").hidden = view.isAtEnd(); });
  box.addEventListener("click", (event) => {
    const line = event.target.closest(".ln[data-at]");
    if (line && !String(getSelection())) { mark(line); link(line.dataset.at); }
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "p") { event.preventDefault(); pause(!paused); }
    if (event.key === "w") part("wrap").click();
    if (event.key === "End") part("newest").click();
  });

  const given = new URLSearchParams(location.search), at = Number(given.get("at"));
  part("search").value = given.get("find") || "";
  if (["i", "w", "e"].includes(given.get("level"))) part("level").value = given.get("level");
  choose();
  begin(given.has("at") && at >= 0 ? at : null);
  setInterval(ask, EVERY_MS);

  // From the newest on; or, with a link to a moment, from a little before that, paused.
  async function begin(moment) {
    if (moment === null) { ask(); return; }
    asking = true;
    const body = await get({ at: Math.max(0, moment - BEFORE_BYTES) });
    asking = false;
    if (!body) return;
    take({ ...body, state: body.state });
    const line = view.lineAt(moment);
    mark(line);
    line?.scrollIntoView({ block: "center" });
    pause(true);
  }
}
