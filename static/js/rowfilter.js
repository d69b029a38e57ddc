// A page's filter: of its tables only the rows that have all its words. The words stand in the address, so that a link
// shows a colleague the same rows; parts that the server renders again, and statuses that change, are filtered anew.
import { text } from "./dom.js";

const LEAST = 8; // rows below which one reads them all
const box = document.querySelector("[data-rows]");

if (box) {
  const input = box.querySelector("input"), said = box.querySelector("[role=status]");
  const rows = () => [...document.querySelectorAll(box.dataset.rows)];

  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), all = rows();
    let shown = 0;
    for (const row of all) {
      const told = words.length ? row.textContent.toLowerCase() : "";
      row.hidden = !words.every((word) => told.includes(word)) && !row.querySelector("input[type=checkbox]:checked"); // what is chosen stays in sight
      if (!row.hidden) shown += 1;
    }
    box.hidden = all.length < LEAST && !words.length;
    text(said, words.length ? `${shown} of ${all.length}` : "");
    carry();
  };
  /** The pages before and after, and a button that comes back to this page, keep the words. */
  const carry = () => {
    const put = (address) => { if (input.value.trim()) address.searchParams.set("filter", input.value); else address.searchParams.delete("filter"); return address; };
    for (const link of document.querySelectorAll("main .pages a[rel]")) link.href = put(new URL(link.href));
    for (const next of document.querySelectorAll("main input[name=next]")) {
      const address = new URL(next.value, location.href);
      if (address.pathname === location.pathname) { const here = put(new URL(location.href)); next.value = here.pathname + here.search; }
    }
  };
  const keep = () => {
    const address = new URL(location.href);
    if (input.value.trim()) address.searchParams.set("filter", input.value); else address.searchParams.delete("filter");
    history.replaceState(history.state, "", address);
  };
  input.value = new URLSearchParams(location.search).get("filter") || "";
  input.addEventListener("input", () => { apply(); keep(); });
  input.addEventListener("keydown", (event) => { if (event.key === "Escape" && input.value) { event.preventDefault(); input.value = ""; apply(); keep(); } });
  document.body.addEventListener("htmx:afterSwap", apply);
  document.addEventListener("rows-restated", apply);
  apply();
}
