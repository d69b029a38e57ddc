// The draft of a change: which partition shall go to which lane. It lives in the address, so a link opens the same one.
const moves = new Map(); // partition id -> lane: "3:prefill" or "idle"
const listeners = new Set();

export const IDLE = "idle";
export const laneOf = (part) => (part.deployment ? `${part.deployment.id}:${part.role}` : IDLE);
export const target = (id) => moves.get(id) ?? null;
export const size = () => moves.size;
export const entries = () => [...moves];
export const words = () => [...moves].map(([id, lane]) => `${id}:${lane}`);
export function onChange(fn) { listeners.add(fn); }

/** Where it already is, a move is none. `parts` are live partitions. */
export function put(parts, lane) {
  parts.forEach((part) => { moves.delete(part.id); if (laneOf(part) !== lane) moves.set(part.id, lane); });
  changed();
}

export function remove(ids) {
  ids.forEach((id) => moves.delete(id));
  changed();
}

export function clear() {
  moves.clear();
  changed();
}

export function load() {
  new URLSearchParams(location.search).getAll("move").forEach((word) => {
    const found = /^(\d+):(idle|\d+:(?:prefill|decode|aggregated))$/.exec(word);
    if (found) { moves.delete(Number(found[1])); moves.set(Number(found[1]), found[2]); }
  });
}

export function query() {
  return words().map((word) => `move=${word}`).join("&");
}

function changed() {
  const rest = new URLSearchParams(location.search);
  ["move", "change"].forEach((key) => rest.delete(key));
  const all = [rest.toString(), query()].filter(Boolean).join("&");
  history.replaceState(null, "", all ? `?${all}` : location.pathname);
  listeners.forEach((fn) => fn());
}
