// One picture of the fleet, kept fresh: REST snapshot first, then frames over the socket, with the figures of what the
// page says it shows. A gap, a new epoch or a tab that slept fetches the snapshot again; without a socket the page polls
// and says so.
import { fill } from "./cells.js";
import { age, clock } from "./format.js";

const POLL_MS = 5000, SLEPT_MS = 6000, RETRY_MS = [1000, 2000, 5000], SAY_MS = 200, MOST_WAITING = 30;
const QUIET_MS = 8000; // frames come each second: a socket that says nothing for so long is dead, whatever it says of itself
const BLANK = { type: "view", fill: null, nodes: [], detail: [] };
let unreachable = "";
export const store = { nodes: new Map(), summary: null, version: null, changes: [], epoch: null, seq: -1, offset: 0, at: 0, ready: false, online: false, heard: 0 };
const listeners = new Set();
let view = BLANK, said = "", sayTimer = null;
let socket = null, retries = 0, fetching = null, queue = [], lostAt = null, pollTimer = null, lastTick = Date.now(), againTimer = null;

export const now = () => Date.now() / 1000 + store.offset;
export const ageOf = (node) => (node.seen === null ? null : Math.max(0, now() - node.seen));
/** A busy page judges by the server's last word, or it would take its own lateness for the nodes' silence. */
const judged = () => (store.online ? store.at : now());
export const isStale = (node) => node.status === "silent" || node.seen === null || judged() - node.seen > 3 * (node.period_s || 1) + 1;
export const silence = (node) => `${store.online || node.status === "silent" ? "silent" : "not heard of"} for ${age(ageOf(node))}`;
/** Since when a figure is known: of a node in sight its fill, of one shown whole all of them. */
export const knownSince = (node, fill) => Math.max(node.whole_at, node.filled?.[fill] ?? 0);
export const isBehind = (node, fill) => node.seen !== null && node.seen - knownSince(node, fill) > 2 * (node.period_s || 1) + 1;
export function subscribe(fn) { listeners.add(fn); return () => listeners.delete(fn); }
const tell = (change) => listeners.forEach((fn) => fn(change));

export function start() {
  snapshot();
  open();
  setInterval(watchSleep, 1000);
  document.addEventListener("visibilitychange", () => { say(); if (!document.hidden) watchSleep(); });
}

/** What the page shows from now on: one figure of the GPUs of `nodes`, everything of those in `detail` ("all": of all). */
export function show({ fill = null, nodes = [], detail = [] }) {
  view = { type: "view", fill, nodes, detail };
  sayTimer ??= setTimeout(() => { sayTimer = null; say(); }, said ? SAY_MS : 0);
}

function say() {
  const message = JSON.stringify(document.hidden ? BLANK : view);
  if (socket?.readyState !== WebSocket.OPEN || message === said) return;
  said = message;
  socket.send(message);
}

function keep(node, at) {
  node.whole_at = at;
  node.seen = node.age_s === null || node.age_s === undefined ? null : at - node.age_s;
  store.nodes.set(node.id, node);
}

export async function snapshot() {
  if (fetching) return fetching;
  if (store.online) light("catching");
  fetching = load().finally(() => { fetching = null; });
  return fetching;
}

async function load() {
  try {
    const response = await fetch("/api/v1/live", { headers: { Accept: "application/json" }, cache: "no-store" });
    if (response.status === 401 || response.status === 403) return signedOut();
    if (!response.ok) throw new Error(`status ${response.status}`);
    const body = await response.json();
    Object.assign(store, { summary: body.summary, version: body.version ?? null, changes: body.changes || [], epoch: body.epoch, seq: body.seq, offset: body.at - Date.now() / 1000, at: body.at, ready: true, heard: Date.now() });
    store.nodes.clear();
    body.nodes.forEach((node) => keep(node, body.at));
    tell({ all: true });
    const waiting = queue; queue = [];
    waiting.filter((frame) => frame.epoch === store.epoch).forEach(take); // of another epoch: before a change of leader
    unreachable = "";
    light(store.online ? "live" : "lost");
  } catch {
    lostAt ??= Date.now();
    unreachable = "the server does not answer";
    light("lost");
  }
  return undefined;
}

function receive(frame) {
  if (!fetching) take(frame);
  else if (queue.push(frame) > MOST_WAITING) queue.shift(); // a gap, which is mended as any other
}

const take = (frame) => (frame.type === "late" ? fillIn(frame) : apply(frame));

/** What came into sight between two frames. */
function fillIn(frame) {
  frame.nodes.forEach((node) => keep(node, frame.at));
  tell({ all: false, nodes: frame.nodes, removed: [], filled: fill(store.nodes, frame) });
}

function apply(frame) {
  if (frame.epoch === store.epoch && frame.seq <= store.seq) return;
  if (frame.epoch !== store.epoch || frame.seq !== store.seq + 1) { queue.push(frame); again(); return; }
  store.seq = frame.seq;
  store.heard = Date.now();
  Object.assign(store, { at: frame.at, offset: frame.at - Date.now() / 1000 });
  Object.assign(store, { summary: frame.summary, version: frame.version ?? store.version, changes: frame.changes || store.changes });
  for (let i = 0; i < frame.heard.length; i += 2) {
    const node = store.nodes.get(frame.heard[i]);
    if (node) node.seen = frame.at - frame.heard[i + 1] / 10;
  }
  frame.nodes.forEach((node) => keep(node, frame.at));
  const filled = fill(store.nodes, frame);
  frame.removed.forEach((id) => store.nodes.delete(id));
  tell({ all: false, nodes: frame.nodes, removed: frame.removed, filled });
}

function again() {
  light("catching");
  againTimer ??= setTimeout(() => { againTimer = null; snapshot(); }, fetching ? 1000 : 0);
}

function open() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live?view`);
  socket.onopen = () => {
    const wasLost = lostAt !== null;
    Object.assign(store, { online: true, heard: Date.now() }); said = ""; retries = 0; lostAt = null; clearInterval(pollTimer); pollTimer = null;
    say();
    if (wasLost || !store.ready) snapshot(); else light("live"); // where something was missed in between, the next frame's number tells
  };
  socket.onmessage = (event) => { const frame = JSON.parse(event.data); if (frame.type === "frame" || frame.type === "late") receive(frame); };
  socket.onclose = closed;
}

function closed() {
  lostAt ??= Date.now();
  store.online = false;
  light("lost");
  pollTimer ??= setInterval(snapshot, POLL_MS);
  setTimeout(open, RETRY_MS[Math.min(retries++, RETRY_MS.length - 1)]);
}

function watchSleep() {
  const slept = Date.now() - lastTick > SLEPT_MS;
  lastTick = Date.now();
  if (store.online && Date.now() - store.heard > QUIET_MS) leave();
  if (slept) snapshot();
}

/** A connection that is gone may take minutes to say so. */
function leave() {
  socket.onclose = socket.onmessage = null;
  socket.close();
  closed();
}

function signedOut() {
  unreachable = "signed out; reload the page";
  lostAt ??= Date.now();
  light("lost");
}

function light(state) {
  const node = document.getElementById("light");
  if (!node) return;
  const since = clock((lostAt ?? Date.now()) / 1000);
  const words = { live: "live", catching: "catching up", lost: `lost since ${since}, ${unreachable || "polling every 5 s"}` }[state];
  if (node.dataset.state === state && node.lastChild.textContent === words) return;
  node.dataset.state = state;
  node.lastChild.textContent = words;
}
