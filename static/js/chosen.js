// Beside the button of a form with boxes to tick in many rows: how many are ticked, which is what the button is for.
import { text } from "./dom.js";

for (const said of document.querySelectorAll("[data-chosen]")) {
  const form = said.closest("form"), every = form.querySelector("[name=all_nodes]");
  const tell = () => {
    const boxes = [...form.querySelectorAll(`[type=checkbox][name="${said.dataset.chosen}"]`)];
    text(said, every?.checked ? `all ${boxes.length} chosen` : `${boxes.filter((box) => box.checked).length} chosen`);
  };
  form.addEventListener("change", tell);
  addEventListener("pageshow", tell); // a browser that comes back keeps what was ticked
  tell();
}
