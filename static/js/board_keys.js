// The board from the keyboard: arrows between pieces, Space selects, letters plan, m asks where to.
const ROLES = { p: "prefill", d: "decode", a: "aggregated" };

export function attach(board, { move, idle, choose, select, cancel, take, done }) {
  board.addEventListener("focusin", (event) => {
    const piece = event.target.closest("[data-piece]");
    if (!piece) return;
    board.querySelectorAll("[data-piece][tabindex='0']").forEach((other) => other.setAttribute("tabindex", "-1"));
    piece.setAttribute("tabindex", "0");
  });
  board.addEventListener("keydown", (event) => {
    const piece = event.target.closest("[data-piece]");
    if (!piece || event.defaultPrevented || event.altKey || (event.ctrlKey || event.metaKey) && event.key !== "Enter" || event.target.closest("button")) return;
    const id = Number(piece.dataset.piece), act = actions(id)[event.key] || (event.key.startsWith("Arrow") && (() => near(board, piece, event.key)?.focus()));
    if (!act) return;
    event.preventDefault();
    act();
  });
  const actions = (id) => ({
    ...Object.fromEntries(Object.entries(ROLES).map(([key, role]) => [key, () => move(take(id), role)])),
    u: () => idle(take(id)), m: () => choose(take(id)), Enter: () => choose(take(id)), " ": () => select(id),
    x: () => cancel(take(id)), Delete: () => cancel(take(id)), Backspace: () => cancel(take(id)), Escape: () => select(null),
    Home: () => all(board)[0]?.focus(), End: () => all(board).at(-1)?.focus(),
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.target.closest("form, dialog")) { event.preventDefault(); done(); } }, true);
}

const all = (board) => [...board.querySelectorAll("[data-piece]")];

/** The nearest piece that way: straight ahead counts most. */
function near(board, from, key) {
  const centre = (element) => { const r = element.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; };
  const [x, y] = centre(from), sideways = key === "ArrowLeft" || key === "ArrowRight", sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  let best = null, least = Infinity;
  all(board).forEach((piece) => {
    const [px, py] = centre(piece), ahead = (sideways ? px - x : py - y) * sign, aside = Math.abs(sideways ? py - y : px - x);
    const far = ahead + aside * 3;
    if (piece !== from && ahead > 8 && far < least) { best = piece; least = far; }
  });
  return best;
}
