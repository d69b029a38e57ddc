// The assignment board: live pieces on lanes; dragging, keys and the chooser all edit the same draft.
import { bind, partShape } from "./bind.js";
import * as draft from "./board_draft.js";
import { attach as attachDrag, isHeld } from "./board_drag.js";
import { attach as attachKeys } from "./board_keys.js";
import * as lanes from "./board_lanes.js";
import { attach as attachPanel, behind, toForm } from "./board_panel.js";
import { choose } from "./board_chooser.js";
import { plural } from "./format.js";
import { text } from "./dom.js";
import { store } from "./live.js";
import "./plan.js";

const board = document.getElementById("board"), filter = document.getElementById("filter"), said = document.getElementById("said");
const may = board.dataset.may === "assign";
const say = (words) => text(said, words);
let waiting = false;

function redraw() {
  if (isHeld()) { waiting = true; return; } // what is under the pointer stays what it is
  waiting = false;
  lanes.read();
  if (lanes.isBehind()) { location.reload(); return; }
  lanes.draw(filter.value);
  board.classList.toggle("has-draft", draft.size() > 0);
  text(document.getElementById("drafted"), plural(draft.size(), "move"));
  bar();
}

function plan(ids, lane) {
  const found = ids.map((id) => lanes.parts.get(id)).filter(Boolean);
  lanes.selected.clear();
  draft.put(found.map(({ part }) => part), lane);
  say(`${found.length === 1 ? lanes.full(found[0]) : plural(found.length, "partition")} to ${lanes.laneLabel(lane)} in the draft of ${plural(draft.size(), "move")}`);
}

/** Each piece into that role of its own deployment; one that is idle has none, so it asks. */
function flip(ids, role) {
  const own = (id) => (draft.target(id) ?? draft.laneOf(lanes.parts.get(id).part)).split(":")[0];
  const homeless = ids.filter((id) => own(id) === draft.IDLE);
  const byHome = new Map();
  ids.filter((id) => !homeless.includes(id)).forEach((id) => byHome.set(own(id), [...(byHome.get(own(id)) || []), id]));
  byHome.forEach((members, home) => plan(members, `${home}:${role}`));
  if (!homeless.length) return;
  const offered = lanes.lanes().filter(({ key }) => key.endsWith(`:${role}`));
  if (offered.length === 1) plan(homeless, offered[0].key); else ask(homeless, role);
}

const ask = (ids, role = "") => { if (may && ids.length) choose(lanes.lanes(), ids.map((id) => lanes.full(lanes.parts.get(id))), role, (lane) => plan(ids, lane)); };
const take = (id) => (lanes.selected.has(id) ? [...lanes.selected] : [id]);

function select(id) {
  if (id === null) lanes.selected.clear(); else if (!lanes.selected.delete(id)) lanes.selected.add(id);
  lanes.mark();
  bar();
}

function bar() {
  const box = document.getElementById("selection"), count = lanes.selected.size;
  if (!box) return;
  box.hidden = count === 0;
  text(box.querySelector("b"), count === 1 ? lanes.full(lanes.parts.get([...lanes.selected][0])) : plural(count, "partition"));
}

function remember() {
  const query = new URLSearchParams(location.search);
  if (filter.value) query.set("filter", filter.value); else query.delete("filter");
  history.replaceState(null, "", query.size ? `?${decodeURIComponent(query)}` : location.pathname);
  redraw();
}

/** From elsewhere, with a partition in hand: ask at once where it shall go. */
function picked() {
  const query = new URLSearchParams(location.search), id = Number(query.get("pick"));
  if (!id || !lanes.parts.has(id)) return;
  const role = query.get("role") || "";
  ["pick", "role"].forEach((key) => query.delete(key));
  history.replaceState(null, "", query.size ? `?${decodeURIComponent(query)}` : location.pathname);
  document.querySelector(`[data-piece="${id}"]`)?.focus();
  ask([id], role);
}

draft.load();
draft.onChange(redraw);
filter.value = new URLSearchParams(location.search).get("filter") || "";
filter.addEventListener("input", remember);
document.addEventListener("forebay:dropped", () => { if (waiting) redraw(); });
attachPanel();
if (may) {
  attachDrag(board, { take, drop: plan });
  attachKeys(board, {
    move: flip, idle: (ids) => plan(ids, draft.IDLE), choose: ask, select, take, cancel: (ids) => draft.remove(ids),
    done: toForm,
  });
  board.addEventListener("click", (event) => { const piece = event.target.closest("[data-piece]"); if (piece && !event.target.closest("a, button")) select(Number(piece.dataset.piece)); });
  document.getElementById("selection").addEventListener("click", (event) => {
    if (event.target.closest("[data-move]")) ask([...lanes.selected]);
    if (event.target.closest("[data-none]")) select(null);
  });
}
setInterval(lanes.repaint, 1000);
bind({
  everything: true,
  shapeOf: (nodes) => JSON.stringify(store.changes.map((change) => [change.id, change.state]).concat(nodes.map((node) => [node.id, node.name, node.schedulable, node.draining, node.partitions.map((part) => partShape(part, node))]))),
  onMove: redraw,
  onChange: (change) => { if (change.all) { redraw(); picked(); } else { lanes.read(); lanes.repaint(); } behind(store.version); },
});
