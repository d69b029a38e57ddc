// The lines of one log: kept, chosen by level and words, hits marked. Text only, never parsed as HTML.
import { el } from "./dom.js";

const KEEP = 200_000, ORDER = "diwe", NAMES = { d: "debug", i: "info", w: "warning", e: "error" };
const COLOURS = /\u001b\[[0-9;?]*[ -\/]*[@-~]/g, bytes = new TextEncoder();

export function lineView(box) {
  let lines = [], size = 0, open = false, chosen = { search: "", level: "d", only: false }, hits = [], hit = -1;

  // `levels` has a letter for each line of `text`; a line without its end goes on with the next text.
  function add(text, levels, offset) {
    const atEnd = isAtEnd(), fresh = [];
    let at = offset;
    text.split(/(?<=\n)/).forEach((raw, i) => {
      const shown = raw.replace(/\n$/, "").replace(COLOURS, "").split("\r").filter(Boolean).pop() ?? "";
      if (open && i === 0 && lines.length) grow(lines[lines.length - 1], shown);
      else fresh.push({ at, level: levels[i] || "i", text: shown });
      at += bytes.encode(raw).length;
      size += raw.length;
    });
    open = !text.endsWith("\n");
    fresh.forEach(put);
    trim();
    if (atEnd) toEnd();
  }

  function note(text) {
    const line = { at: -1, level: "n", text };
    put(line);
    open = false;
  }

  function put(line) {
    lines.push(line);
    line.node = el("div", { class: `ln l-${line.level}`, ...(line.at >= 0 ? { "data-at": String(line.at) } : {}) });
    paint(line);
    box.append(line.node);
  }

  function grow(line, more) {
    line.text += more;
    paint(line);
  }

  function paint(line) {
    const found = line.level !== "n" && chosen.search ? positions(line.text, chosen.search) : [];
    const shown = line.level === "n" || (ORDER.indexOf(line.level) >= ORDER.indexOf(chosen.level) && (!chosen.only || !chosen.search || found.length > 0));
    line.node.hidden = !shown;
    line.node.title = NAMES[line.level] || "";
    const parts = [];
    let from = 0;
    for (const at of found) {
      parts.push(line.text.slice(from, at), el("mark", {}, line.text.slice(at, at + chosen.search.length)));
      from = at + chosen.search.length;
    }
    line.node.replaceChildren(...parts, line.text.slice(from) || (parts.length ? "" : "\u200b"));
  }

  function choose(wanted) {
    const atEnd = isAtEnd();
    chosen = wanted;
    lines.forEach(paint);
    hit = -1;
    if (atEnd) toEnd();
  }

  // To the next hit, or with -1 to the one before; where we are among how many.
  function step(by) {
    hits = [...box.querySelectorAll(".ln:not([hidden]) mark")];
    if (!hits.length) return { at: 0, of: 0 };
    hits[hit]?.classList.remove("here");
    hit = hit < 0 && by < 0 ? hits.length - 1 : (hit + by + hits.length) % hits.length;
    hits[hit].classList.add("here");
    hits[hit].scrollIntoView({ block: "center" });
    return { at: hit + 1, of: hits.length };
  }

  function trim() {
    while (size > KEEP && lines.length > 1) {
      const gone = lines.shift();
      size -= gone.text.length + 1;
      gone.node.remove();
    }
  }

  const isAtEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const toEnd = () => { box.scrollTop = box.scrollHeight; };
  const clear = () => { lines = []; size = 0; open = false; box.replaceChildren(); };
  const count = () => ({ hits: box.querySelectorAll(".ln:not([hidden]) mark").length, shown: lines.filter((line) => !line.node.hidden).length, of: lines.length });
  const lineAt = (offset) => lines.findLast((line) => line.at >= 0 && line.at <= offset)?.node;
  return { add, note, choose, step, toEnd, isAtEnd, clear, count, lineAt };
}

function positions(text, search) {
  const found = [], low = text.toLowerCase(), wanted = search.toLowerCase();
  for (let at = low.indexOf(wanted); at >= 0 && found.length < 200; at = low.indexOf(wanted, at + wanted.length)) found.push(at);
  return found;
}
