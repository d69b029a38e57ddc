// Chats with a deployment through the gateway, and shows who served it and how long each step took.
import { el, glyph } from "./dom.js";
import { number } from "./format.js";

export function playground() {
  const form = document.getElementById("ask"), chat = document.getElementById("chat");
  if (!form) return;
  const stop = document.getElementById("stop"), clear = document.getElementById("clear"), input = form.elements.message;
  const turns = [];
  let running = null;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = input.value.trim();
    if (!said || running) return;
    input.value = "";
    clear.hidden = false;
    turns.push({ role: "user", content: said });
    chat.append(turn("user", "You", said));
    running = new AbortController();
    stop.hidden = false;
    try { await answer(form, chat, turns, running.signal); } finally { running = null; stop.hidden = true; chat.scrollTop = chat.scrollHeight; }
  });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  stop.addEventListener("click", () => running?.abort());
  clear.addEventListener("click", () => { running?.abort(); turns.length = 0; chat.replaceChildren(); clear.hidden = true; });
}

function turn(kind, by, words) {
  return el("div", { class: `turn ${kind}` }, el("div", { class: "by" }, by), el("div", { class: "said" }, words));
}

async function answer(form, chat, turns, signal) {
  const box = chat.appendChild(turn("assistant", document.getElementById("page").dataset.name, "")), said = box.querySelector(".said");
  const times = { sent: performance.now(), first: null, last: null, pieces: 0 };
  try {
    const response = await fetch(form.dataset.url, {
      method: "POST", signal, headers: { "Content-Type": "application/json", "X-CSRFToken": form.elements.csrfmiddlewaretoken.value },
      body: JSON.stringify({ messages: turns, max_tokens: form.elements.max_tokens.value, temperature: form.elements.temperature.value }),
    });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error?.message || `status ${response.status}`);
    const usage = await read(response, (piece) => {
      times.first ??= performance.now(); times.last = performance.now(); times.pieces += 1;
      said.append(piece); chat.scrollTop = chat.scrollHeight;
    });
    turns.push({ role: "assistant", content: said.textContent });
    box.append(...served(response.headers, times, usage));
  } catch (error) {
    box.classList.add("failed");
    turns.push({ role: "assistant", content: said.textContent });
    box.append(el("div", { class: "served" }, error.name === "AbortError" ? "stopped" : `${error.message} ${said.textContent ? "" : "Nothing was served; check that the replicas are ready and send it again."}`));
    if (!said.textContent) turns.splice(-2);
  }
}

/** Server-sent events: one JSON object a data line, [DONE] at the end. */
async function read(response, onPiece) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", usage = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return usage;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:") || line.includes("[DONE]")) continue;
      const event = JSON.parse(line.slice(5));
      if (event.error) throw new Error(event.error.message || "The stream broke off.");
      if (event.usage) usage = event.usage;
      const piece = event.choices?.[0]?.delta?.content;
      if (piece) onPiece(piece);
    }
  }
}

/** "prefill;dur=12.5, transfer;dur=3" -> {prefill: 12.5, transfer: 3} */
export function timing(header) {
  return Object.fromEntries((header || "").split(",").map((part) => part.trim().match(/^([\w-]+).*?;dur=([\d.]+)/)).filter(Boolean).map(([, name, ms]) => [name, Number(ms)]));
}

function served(headers, times, usage) {
  const told = timing(headers.get("server-timing")), prefill = headers.get("x-forebay-prefill"), decode = headers.get("x-forebay-decode");
  const ttft = times.first === null ? null : times.first - times.sent;
  const tokens = usage?.completion_tokens ?? null;
  const itl = tokens > 1 ? (times.last - times.first) / (tokens - 1) : null;
  const fact = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const who = [];
  if (prefill) who.push(el("span", { class: "role" }, glyph("prefill"), prefill));
  if (decode) who.push(el("span", { class: "role" }, glyph(prefill || headers.get("x-forebay-path") !== "aggregated" ? "decode" : "aggregated"), decode));
  const list = [...who, ttft !== null && fact("TTFT", `${number(ttft)} ms`), itl !== null && fact("ITL", `${number(itl, 1)} ms`),
    told.prefill !== undefined && fact("prefill", `${number(told.prefill, 1)} ms`), told.transfer !== undefined && fact("KV transfer", `${number(told.transfer, 1)} ms`),
    usage && fact("tokens", `${usage.prompt_tokens} in, ${usage.completion_tokens} out`)].filter(Boolean);
  return [bar(told, ttft), el("div", { class: "served" }, list)].filter(Boolean);
}

function bar(told, ttft) {
  if (!told.prefill || ttft === null) return null;
  const rest = Math.max(0, ttft - told.prefill - (told.transfer || 0)), whole = told.prefill + (told.transfer || 0) + rest;
  const part = (name, ms) => el("i", { class: `s-${name}`, style: { width: `${(100 * ms) / whole}%` }, title: `${name} ${number(ms, 1)} ms` });
  return el("div", { class: "steps", role: "img", "aria-label": "Time to the first token by step" }, part("prefill", told.prefill), part("transfer", told.transfer || 0), part("rest", rest));
}
