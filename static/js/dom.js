// Elements built from values, so that no text from the fleet is ever parsed as HTML.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else if (key === "on") for (const [name, fn] of Object.entries(value)) node.addEventListener(name, fn);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${document.documentElement.dataset.static}img/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export const GLYPHS = { prefill: "P", decode: "D", aggregated: "A" };
export const glyph = (role) => el("i", { class: `glyph ${role}`, title: role, "aria-label": role }, GLYPHS[role] || "?");
export const text = (node, value) => { if (node && node.textContent !== value) node.textContent = value; };
