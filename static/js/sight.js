// The rows of the map: which there are of each node, and which are in sight. Only those are repainted and asked for, so
// that a thousand nodes cost no more than a screenful. Many rows share a shelf, for each thing that is watched costs.
const MARGIN = "300px";
export const byNode = new Map(); // node id -> its rows; it has one in each of its groups
const shelves = new Map(); // element -> the rows on it
const seen = new Set(); // of those elements the ones in sight
let told = () => {};
const watch = new IntersectionObserver((entries) => {
  const fresh = entries.filter(({ target }) => shelves.has(target));
  fresh.forEach(({ target, isIntersecting }) => (isIntersecting ? seen.add(target) : seen.delete(target)));
  told(fresh.filter(({ isIntersecting }) => isIntersecting).flatMap(({ target }) => [...shelves.get(target)]));
}, { rootMargin: MARGIN });

/** `fn` gets the rows that came into sight. */
export function onSight(fn) { told = fn; }

export function clear() {
  watch.disconnect();
  for (const held of [byNode, shelves, seen]) held.clear();
}

/** Rows are {element, id, name, shape, group}; a row without a shelf of its own is one. */
export function put(rows, shelf = null) {
  rows.forEach((row) => {
    row.shelf = shelf || row.element;
    if (!shelves.has(row.shelf)) { shelves.set(row.shelf, new Set()); watch.observe(row.shelf); }
    shelves.get(row.shelf).add(row);
    if (!byNode.has(row.id)) byNode.set(row.id, []);
    byNode.get(row.id).push(row);
  });
}

/** Puts a row where the old one is; the others are left alone. */
export function replace(old, row) {
  const own = byNode.get(old.id), isShelf = old.shelf === old.element;
  own.splice(own.indexOf(old), 1);
  shelves.get(old.shelf).delete(old);
  if (isShelf) { watch.unobserve(old.element); shelves.delete(old.element); seen.delete(old.element); }
  old.element.replaceWith(row.element);
  put([row], isShelf ? null : old.shelf);
}

export const inSight = () => [...seen].flatMap((shelf) => [...shelves.get(shelf)]);
export const isThere = (row) => Boolean(shelves.get(row.shelf)?.has(row));
