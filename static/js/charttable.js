// A chart's figures as a table to read and as a file to take along.
import { el } from "./dom.js";
import { moment } from "./format.js";
import { show } from "./samples.js";

const ROWS = 60;
const stamp = (at) => new Date(at * 1000).toISOString();
const named = (at) => moment(at, { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** {heads, rows}: a row a moment, newest first; a band gives three columns. */
function columns({ lines, bands }) {
  const heads = [...bands.flatMap(() => ["p10", "p50", "p90"]), ...lines.map((l) => l.label)];
  const held = [...bands.flatMap((b) => [1, 2, 3].map((i) => new Map(b.points.map((p) => [p[0], p[i]])))), ...lines.map((l) => new Map(l.points))];
  const times = [...new Set([...bands, ...lines].flatMap((s) => s.points.map(([at]) => at)))].sort((a, b) => b - a);
  return { heads, rows: times.map((at) => [at, ...held.map((values) => values.get(at) ?? null)]) };
}

export function table(title, picture) {
  const { heads, rows } = columns(picture);
  const caption = `${title}. ${rows.length > ROWS ? `The newest ${ROWS} of ${rows.length} moments; the file has all.` : `${rows.length} moments.`}`;
  return el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Time, UTC"), heads.map((head) => el("th", { class: "num", scope: "col" }, head)))),
    el("tbody", {}, rows.slice(0, ROWS).map(([at, ...values]) => el("tr", {}, el("th", { scope: "row" }, named(at)), values.map((v) => el("td", { class: "num" }, show(v, picture.unit)))))));
}

export function csv(picture) {
  const { heads, rows } = columns(picture);
  const cell = (text) => (/^[=+\-@\t]/.test(text) ? `"'${text.replaceAll('"', '""')}"` : /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text); // no formula for a spreadsheet
  const unit = picture.unit ? ` (${picture.unit})` : "";
  return [["time", ...heads.map((head) => cell(head + unit))], ...rows.reverse().map(([at, ...values]) => [stamp(at), ...values.map((v) => (v === null ? "" : Number(v.toPrecision(8))))])].map((row) => row.join(",")).join("\r\n");
}

export function save(name, picture) {
  const link = el("a", { href: URL.createObjectURL(new Blob([csv(picture)], { type: "text/csv" })), download: `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
