// The form of a deployment: fields that have no part in what is chosen are not shown, and those of them that hold a value are named.
// They are sent all the same, so that nothing is lost by looking. Without this script all are shown.
import { text } from "./dom.js";

const form = document.querySelector("form[data-served]"), is = (name) => form.elements[name]?.checked, of = (name) => form.elements[name]?.value;
const kept = form.querySelector("[data-kept]"), parts = [...form.querySelectorAll("[data-when]")];

/** What the choices come to, in the words of data-when: a field is shown where one of its words is among them. */
function chosen() {
  const pooled = of("mode") === "pooled", pair = pooled && of("pool_shape") === "pair";
  return new Set([pooled ? "pooled" : "dedicated", pooled && (pair ? "pair" : "alone"), !pooled && is("overflow") && "overflow", is("convertible") && "convertible"]);
}

const isSet = (part) => [...part.querySelectorAll("input:not([type=hidden]), textarea")].some((field) => (field.type === "checkbox" ? field.checked : !["", "0"].includes(field.value.trim())));

function show() {
  const now = chosen(), unused = [];
  parts.forEach((part) => {
    const wanted = part.dataset.when.split(" ").some((word) => now.has(word));
    part.hidden = !wanted && !part.classList.contains("bad"); // what was refused stays in sight
    if (part.hidden && isSet(part)) unused.push(part.querySelector("label").textContent.trim());
  });
  kept.hidden = !unused.length;
  text(kept, unused.length ? `Kept, though it has no part in this choice: ${unused.join(", ")}.` : "");
}

if (form.elements.mode) { form.addEventListener("change", show); show(); }
