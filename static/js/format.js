// Values as people read them. null is "unknown" everywhere, never zero.
export const UNKNOWN = "–";
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export function age(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0, v = value;
  while (v >= 1024 && i < units.length - 1) { v /= 1024; i += 1; }
  return `${v >= 100 || i === 0 ? Math.round(v) : v.toFixed(1)} ${units[i]}`;
}

export function number(value, digits = 0) {
  if (!known(value)) return UNKNOWN;
  if (Math.abs(value) >= 999950) return `${(value / 1e6).toFixed(2)}M`;
  if (Math.abs(value) >= 10000) return `${(value / 1000).toFixed(1)}k`;
  return value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? Math.max(digits, 1) : digits });
}

export const percent = (value) => (known(value) ? `${Math.round(value * 100)}%` : UNKNOWN);
export const unit = (value, name, digits = 0) => (known(value) ? `${number(value, digits)} ${name}` : UNKNOWN);
/** Times are in UTC on all pages, as in REST, the terminal and logs. `how`: of Intl.DateTimeFormat. */
export const moment = (unix, how) => new Date(unix * 1000).toLocaleString("en-GB", { ...how, timeZone: "UTC" });
export const clock = (unix) => `${new Date(unix * 1000).toISOString().slice(11, 19)} UTC`;
/** For an axis: Plotly shows what it is given as text as it stands, and Date objects in the zone of the browser. */
export const onAxis = (unix) => new Date(unix * 1000).toISOString().slice(0, -1);
export const fromAxis = (said) => Date.parse(said.length > 10 ? `${said.replace(" ", "T")}Z` : said) / 1000;
export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export function span(indexes) {
  const sorted = [...indexes].sort((a, b) => a - b), runs = [];
  for (const i of sorted) {
    const last = runs[runs.length - 1];
    if (last && last[1] === i - 1) last[1] = i; else runs.push([i, i]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(", ");
}
