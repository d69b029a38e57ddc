// The charts above the map: open where there is room, or as somebody left them; closed they ask for nothing.
import { charts } from "./charts.js";

const KEY = "forebay-fleet-charts";
const strip = document.getElementById("charts"), button = strip.querySelector("[aria-expanded]"), body = document.getElementById(button.getAttribute("aria-controls"));
const left = () => { try { return localStorage.getItem(KEY); } catch { return null; } };

function set(open) {
  button.setAttribute("aria-expanded", String(open));
  strip.classList.toggle("closed", !open);
  body.hidden = !open;
}

button.addEventListener("click", () => {
  const open = body.hidden;
  set(open);
  try { localStorage.setItem(KEY, open ? "open" : "closed"); } catch { /* private window: it lasts for this page */ }
});
set(left() ? left() === "open" : matchMedia("(min-width: 721px)").matches);
charts(strip);
