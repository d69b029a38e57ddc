// What GET /api/v1/samples gives, what it is called and in what unit people read it; the newest stretch joined on.
const UNITS = { ratio: ["%", 100], bytes: ["GiB", 2 ** -30], "tokens/s": ["tok/s", 1], "bytes/s": ["MB/s", 1e-6] };
const NAMES = { running: "running", waiting: "waiting", prompt_tps: "in", generation_tps: "out", ttft_ms: "TTFT", itl_ms: "ITL", kv_bytes_ps: "received" };
export const MANY = 12;

export async function samples(query) {
  const response = await fetch(`/api/v1/samples?${query}`, { headers: { Accept: "application/json" } });
  if (response.status === 401) throw new Error("you are signed out; reload the page");
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.errors ? Object.values(body.errors).flat().join(" ") : body.detail || `the server answered with status ${response.status}`);
  return body;
}

/** Steps for about 360 points: more than a chart has room for nobody sees. */
export const stepOf = (from, to) => Math.max(1, Math.round((to - from) / 360));

/** `body` with what is newer from `tail`, and without what lies before `from`. Both have the same step. */
export function joined(body, tail, from) {
  const join = (olds = [], news = []) => news.map((line) => {
    const old = olds.find((other) => other.label === line.label && other.id === line.id);
    return { ...line, points: [...(old?.points || []).filter(([at]) => at >= from && at < tail.from), ...line.points] };
  });
  const marks = [...(body.marks || []).filter(({ at }) => at >= from && at < tail.from), ...(tail.marks || [])];
  return { ...tail, from, series: join(body.series, tail.series), ...(tail.bands ? { bands: join(body.bands, tail.bands) } : {}), marks };
}

/** Bodies of one chart as {unit, step, lines, band, marks}: values scaled, several lines for few, one band for many. */
export function picture(bodies, { roleOf = () => true, shape = "lines" } = {}) {
  const [unit, by] = UNITS[bodies[0].unit] || [bodies[0].unit, 1];
  const scale = (value) => (value === null || value === undefined ? null : value * by);
  const lines = bodies.flatMap((body) => body.series.filter((s) => roleOf(s.id)).map((s) => ({
    id: s.id, metric: body.metric, label: named(s.label, body, bodies), points: s.points.map(([at, value]) => [at, scale(value)]),
  })));
  const bands = bodies.flatMap((body) => (body.bands || []).map((b) => ({ label: b.label, points: b.points.map(([at, ...q]) => [at, ...q.map(scale)]) })));
  const marks = bodies[0].marks || [], step = bodies[0].step;
  if (shape === "sum") return { unit, by, step, marks, bands, lines: bodies.map((body) => total(body, lines)) };
  if (lines.length > MANY && shape !== "heat") return { unit, by, step, marks, bands: [...bands, spread(lines)], lines: [] };
  return { unit, by, step, marks, bands, lines };
}

const named = (label, body, bodies) => {
  if (bodies.length === 1) return label;
  return body.series.length > 1 ? `${label} ${NAMES[body.metric] || body.metric}` : NAMES[body.metric] || body.metric;
};

/** One line for all of a metric: at each moment the sum of what is known; unknown where nothing is. */
function total(body, lines) {
  const at = new Map();
  lines.filter((line) => line.metric === body.metric).forEach((line) => line.points.forEach(([t, v]) => { if (v !== null) at.set(t, (at.get(t) || 0) + v); else if (!at.has(t)) at.set(t, null); }));
  return { id: null, metric: body.metric, label: NAMES[body.metric] || body.metric, points: [...at].sort(([a], [b]) => a - b) };
}

/** Over a dozen lines nobody reads: the middle, and where eight of ten lie. */
export function spread(lines) {
  const at = new Map();
  lines.forEach((line) => line.points.forEach(([t, v]) => { const held = at.get(t) || at.set(t, []).get(t); if (v !== null) held.push(v); }));
  const points = [...at].sort(([a], [b]) => a - b).map(([t, values]) => {
    values.sort((a, b) => a - b);
    return [t, ...[0.1, 0.5, 0.9].map((q) => quantile(values, q))];
  });
  return { label: "", count: lines.length, points };
}

function quantile(sorted, q) {
  if (!sorted.length) return null;
  const place = q * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + ((sorted[low + 1] ?? sorted[low]) - sorted[low]) * (place - low);
}

export const isKnown = ({ lines, bands }) => lines.some((l) => l.points.some((p) => p[1] !== null)) || bands.some((b) => b.points.some((p) => p[2] !== null));

/** The newest moment with a value, or null. */
export function newest({ lines, bands }) {
  const last = (points, i) => { for (let n = points.length - 1; n >= 0; n -= 1) if (points[n][i] !== null) return points[n][0]; return null; };
  const all = [...lines.map((l) => last(l.points, 1)), ...bands.map((b) => last(b.points, 2))].filter((at) => at !== null);
  return all.length ? Math.max(...all) : null;
}

export const show = (value, unit) => {
  if (value === null || value === undefined) return "–";
  const digits = unit === "%" || unit === "W" || unit === "°C" || Math.abs(value) >= 100 ? 0 : 1;
  const said = Math.abs(value) >= 10000 ? `${(value / 1000).toFixed(1)}k` : value.toLocaleString("en", { maximumFractionDigits: digits });
  return unit === "%" ? `${said}%` : unit && unit !== "requests" ? `${said} ${unit}` : said;
};
