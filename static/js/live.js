// One picture of the fleet, kept fresh: REST snapshot first, then frames over the socket. A gap, a new epoch or a
// tab that slept fetches the snapshot again; without a socket the page polls and says so.
const POLL_MS = 5000, SLEPT_MS = 6000, RETRY_MS = [1000, 2000, 5000];
let unreachable = "";
export const store = { nodes: new Map(), summary: null, version: null, changes: [], epoch: null, seq: -1, offset: 0, ready: false, online: false, heard: 0 };
const listeners = new Set();
let socket = null, retries = 0, fetching = null, queue = [], lostAt = null, pollTimer = null, lastTick = Date.now(), againTimer = null;

export const now = () => Date.now() / 1000 + store.offset;
export const ageOf = (node) => (node.seen === null ? null : Math.max(0, now() - node.seen));
export const isStale = (node) => node.status === "silent" || node.seen === null || ageOf(node) > 3 * (node.period_s || 1) + 1;
export function subscribe(fn) { listeners.add(fn); return () => listeners.delete(fn); }
const tell = (change) => listeners.forEach((fn) => fn(change));

export function start() {
  snapshot();
  open();
  setInterval(watchSleep, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) watchSleep(); });
}

function keep(node, at) {
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
    Object.assign(store, { summary: body.summary, version: body.version ?? null, changes: body.changes || [], epoch: body.epoch, seq: body.seq, offset: body.at - Date.now() / 1000, ready: true, heard: Date.now() });
    store.nodes.clear();
    body.nodes.forEach((node) => keep(node, body.at));
    tell({ all: true });
    const waiting = queue; queue = [];
    waiting.filter((frame) => frame.epoch === store.epoch).forEach(apply); // of another epoch: before a change of leader
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
  if (fetching) queue.push(frame); else apply(frame);
}

function apply(frame) {
  if (frame.epoch === store.epoch && frame.seq <= store.seq) return;
  if (frame.epoch !== store.epoch || frame.seq !== store.seq + 1) { queue.push(frame); again(); return; }
  store.seq = frame.seq;
  store.heard = Date.now();
  store.offset = frame.at - Date.now() / 1000;
  Object.assign(store, { summary: frame.summary, version: frame.version ?? store.version, changes: frame.changes || store.changes });
  frame.nodes.forEach((node) => keep(node, frame.at));
  frame.removed.forEach((id) => store.nodes.delete(id));
  tell({ all: false, nodes: frame.nodes, removed: frame.removed });
}

function again() {
  light("catching");
  againTimer ??= setTimeout(() => { againTimer = null; snapshot(); }, fetching ? 1000 : 0);
}

function open() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live`);
  socket.onopen = () => { store.online = true; retries = 0; lostAt = null; clearInterval(pollTimer); pollTimer = null; snapshot(); };
  socket.onmessage = (event) => { const frame = JSON.parse(event.data); if (frame.type === "frame") receive(frame); };
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
  if (slept) snapshot();
}

function signedOut() {
  unreachable = "signed out; reload the page";
  lostAt ??= Date.now();
  light("lost");
}

function light(state) {
  const node = document.getElementById("light");
  if (!node) return;
  const since = lostAt ? new Date(lostAt).toLocaleTimeString("en-GB") : new Date().toLocaleTimeString("en-GB");
  const words = { live: "live", catching: "catching up", lost: `lost since ${since}, ${unreachable || "polling every 5 s"}` }[state];
  if (node.dataset.state === state && node.lastChild.textContent === words) return;
  node.dataset.state = state;
  node.lastChild.textContent = words;
}
