// The cividis ramp (safe for colour-blind eyes), low end nearest the page's background, with an ink that reads on it.
const STOPS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];
const light = () => document.documentElement.dataset.theme === "light";
const channel = (v) => { const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
export const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);

export function at(t) {
  const clamped = Math.min(1, Math.max(0, t));
  const place = (light() ? 1 - clamped : clamped) * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(place)), f = place - i;
  const pale = light() ? (1 - clamped) * 0.5 : 0; // bright yellow for "nothing" would shout on a white page
  return STOPS[i].map((v, k) => { const c = v + (STOPS[i + 1][k] - v) * f; return Math.round(c + (255 - c) * pale); });
}

/** In a hundred steps, each worked out once. */
export function paint(t) {
  const key = `${Math.round(Math.min(1, Math.max(0, t)) * 100)}${light() ? "l" : "d"}`;
  if (!mixed.has(key)) mixed.set(key, mix(at(parseInt(key, 10) / 100)));
  return mixed.get(key);
}

const mixed = new Map();
const mix = (colour) => ({ fill: `rgb(${colour.join(" ")})`, ink: luminance(colour) > 0.179 ? "#000" : "#fff" });

export const gradient = () => `linear-gradient(90deg, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map((t) => paint(t).fill).join(", ")})`;
