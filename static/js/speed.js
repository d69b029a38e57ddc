// Speed and size of one deployment: profiles of its model, measuring an engine, and how many it needs.
import { el, text } from "./dom.js";
import { UNKNOWN, age, number } from "./format.js";
import { offer } from "./speed_apply.js";
import { drawDecode, drawPrefill } from "./speed_plots.js";

const heads = (id) => [...$(id).closest("table").tHead.rows[0].cells].map((head) => head.textContent); // over a cell on a phone
const EVERY_MS = 1500, page = document.getElementById("page").dataset, $ = (id) => document.getElementById(id);
const OPEN = ["wanted", "running"];
let profiles = [], chosen = null, run = null;

/** The answer, or an Error with the server's own words and its problems. */
async function ask(path, body, method = "POST") {
  const headers = { Accept: "application/json" };
  if (body) Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value });
  const answer = await fetch(`/api/v1/${path}`, { headers, ...(body ? { method, body: JSON.stringify(body) } : {}) });
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const problems = said.problems ?? [], words = problems.map((one) => `${one.message} ${one.fix}`).join(" ");
  throw Object.assign(new Error(words || said.detail || `the server answered with status ${answer.status}`), { forceable: problems.length > 0 && problems.every((one) => one.forceable) });
}

async function load(number) {
  try {
    profiles = (await ask(`profiles?model=${encodeURIComponent(page.model)}&page_size=50`)).results;
    text($("profiles-said"), profiles.length ? "dots were measured, curves are fitted to them" : "");
  } catch (error) {
    text($("profiles-said"), error.message);
    return;
  }
  $("none").hidden = profiles.length > 0;
  $("profiles").hidden = !profiles.length;
  $("profiles").tBodies[0].replaceChildren(...profiles.map(row));
  const first = profiles.find((one) => one.id === number) ?? profiles.find((one) => one.source === "measured" && one.knee) ?? profiles.find((one) => one.knee);
  if (first) choose(first.id);
  else $("drawn").hidden = true;
}

function row(one) {
  const share = (law) => (law ? `${(100 * law.mean_error).toFixed(1)}%` : UNKNOWN);
  const cells = [number(one.knee?.tokens ?? null), number(one.knee?.plateau_tokens_per_s ?? null), share(one.prefill), share(one.decode)], over = heads("profiles");
  const from = one.source === "measured" ? `measured on ${one.origin}` : `${one.source} from ${one.origin}`, made = `${age((Date.now() - Date.parse(one.created_at)) / 1000)} ago by ${one.created_by}`;
  const name = el("button", { type: "button", class: "row" }, `${one.tp} x ${one.gpu}`);
  return el("tr", { "data-id": one.id, on: { click: () => choose(one.id) } }, el("td", {}, name), ...cells.map((cell, i) => el("td", { class: "num", "data-h": over[i + 1] }, cell)), el("td", { class: "wide", "data-h": over[5] }, [from, one.engine_version].filter(Boolean).join(", ")), el("td", { class: "wide", "data-h": over[6] }, made));
}

async function choose(id) {
  chosen = id;
  for (const tr of $("profiles").tBodies[0].rows) tr.setAttribute("aria-selected", String(Number(tr.dataset.id) === id));
  const found = await ask(`profiles/${id}`).catch((error) => { text($("profiles-said"), error.message); return null; });
  if (!found || chosen !== id) return;
  $("drawn").hidden = !found.knee;
  if (!found.knee) { text($("profiles-said"), found.problem); return; }
  text($("drawn-of"), `${found.tp} x ${found.gpu}${found.engine_version ? `, ${found.engine_version}` : ""}`);
  notes($("notes"), found.notes);
  await Promise.all([offer(id, Number(page.deployment), { ask, notes }), drawPrefill($("prefill"), found), drawDecode($("decode"), found)]);
}

function notes(box, lines) {
  box.hidden = !lines.length;
  box.replaceChildren(...lines.map((line) => el("li", {}, `${line[0].toUpperCase()}${line.slice(1)}.`)));
}

async function measure(force) {
  $("anyway").hidden = true;
  try {
    run = await ask("profile-runs", { deployment: Number(page.deployment), partition: Number($("measure").elements.partition.value), force });
    follow();
  } catch (error) {
    text($("measure-said"), error.message);
    $("anyway").hidden = !error.forceable;
  }
}

async function follow() {
  while (run && OPEN.includes(run.state)) {
    far();
    await new Promise((next) => setTimeout(next, EVERY_MS));
    run = await ask(`profile-runs/${run.id}`).catch(() => run);
  }
  far();
  if (run?.state === "done") await load(run.profile);
}

function far() {
  const open = OPEN.includes(run.state), bar = $("far");
  bar.hidden = $("call-off").hidden = !open;
  $("measure").querySelector("[type=submit]").disabled = open;
  if (run.steps) { bar.max = run.steps; bar.value = run.done; } else bar.removeAttribute("value");
  const words = { wanted: `${run.partition} waits to be measured.`, running: `${run.partition}: ${run.steps ? `step ${run.done} of ${run.steps}, ` : ""}${run.message}`, done: `${run.partition} was measured.`, cancelled: "It was called off; nothing was kept.", failed: `${run.partition} could not be measured${run.ended_at ? `, ${age((Date.now() - Date.parse(run.ended_at)) / 1000)} ago` : ""}; nothing was kept. ${run.message}` };
  text($("measure-said"), words[run.state]);
  $("measure-said").classList.toggle("failed", run.state === "failed");
}

async function size(event) {
  event.preventDefault();
  const form = $("size"), query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  form.querySelector("[type=submit]").disabled = true;
  text($("size-said"), "Replays them…");
  try {
    const said = await ask(`capacity/sizing?deployment=${page.deployment}&${query}`);
    sized(said);
    const from = said.demand.made_up ? "at the rate given" : `of ${said.demand.requests.toLocaleString("en")} requests, ${number(said.demand.rate_per_s, 2)} a second`;
    text($("size-said"), `${said.replays} replays in ${(said.took_ms / 1000).toFixed(1)} s, ${from}, prompts of ${number(said.demand.isl)} and answers of ${number(said.demand.osl)} tokens.`);
  } catch (error) {
    $("sized").hidden = true;
    text($("size-said"), error.message);
  }
  form.querySelector("[type=submit]").disabled = false;
}

function sized({ best, aggregated, disaggregated, closed_form: closed, wanted, missing, offers, lengths, notes: lines }) {
  const other = best === "aggregated" ? disaggregated : aggregated, mine = best === "aggregated" ? aggregated : disaggregated;
  const lacking = Object.entries(missing).map(([gpu, count]) => `${count} x ${gpu}`).join(", ");
  const verdict = mine ? `${mine.told} keeps the aims with ${mine.gpus} GPU${mine.gpus === 1 ? "" : "s"}.${other ? ` ${best === "aggregated" ? "Disaggregated" : "Aggregated"} takes ${(other.gpus / mine.gpus).toFixed(2)} times as many.` : ` ${best === "aggregated" ? "Disaggregated" : "Aggregated"} does not keep them on this fleet.`}` : wanted ? `The fleet lacks ${lacking}: ${wanted.told} would keep the aims.` : "No number of these engines keeps the aims.";
  text($("verdict"), verdict);
  const over = heads("sizes"), rows = [["Aggregated", aggregated, best === "aggregated"], ["Disaggregated", disaggregated, best === "disaggregated"], ["More than there is", wanted], ["By formulas alone", closed]].filter(([, one]) => one);
  $("sizes").replaceChildren(...rows.map(([kind, one, isBest]) => el("tr", { class: isBest ? "best" : null }, el("td", {}, kind), el("td", { "data-h": "Engines", class: "wide" }, one.told), ...[one.gpus, `${(100 * one.met).toFixed(1)}%`, `${number(one.ttft_ms)} ms`, `${number(one.itl_ms, 1)} ms`, number((one.prefill ?? one.decode).max_num_batched_tokens)].map((cell, i) => el("td", { class: "num", "data-h": over[i + 2] }, String(cell))))));
  notes($("size-notes"), [...offers.map((one) => `${one.tp} x ${one.gpu}: ${one.source === "roofline" ? "by its rates alone, nothing was measured" : `by profile ${one.profile}, ${one.source}`}, ${one.gpus} GPUs there`), ...ratios(rows), ...ahead(lengths), ...lines]);
  $("sized").hidden = false;
}

/** P : D of each kind that has engines for either phase: what the demand takes, beside the engines that were found. */
const ratios = (rows) => rows.filter(([, one]) => one.prefill).map(([kind, one]) => `${kind}: the demand takes ${number(one.prefill_per_decode, 2)} prefill engines for each that decodes, all equally loaded (P:D), which became ${one.prefill.count} and ${one.decode.count}`);

const whole = (share) => Number((100 * share).toFixed(1)); // 0.57 is 57, not 56.99999999999999

/** What the next hour's prompts and answers are told to be, by how many past hours, and how that held. */
const ahead = (told) => (!told ? [] : [["prompts", told.isl], ["answers", told.osl]].map(([name, one]) => {
  const by = (values) => Object.entries(values).map(([level, value]) => `${number(value)} at ${whole(level)}%`).join(", ");
  if (!one.mean) return `of the next hour's ${name} nothing is told, for too little is on record: they are replayed as long as they were (${by(one.requests)} of single ones)`;
  const share = one.covered["0.95"], held = share === null ? "none was told before" : `${(100 * share).toFixed(0)}% of them were no longer than told at 95%`;
  return `${name} of the next hour: a mean of ${by(one.mean)} tokens (${one.why}; ${held}); replayed at ${whole(told.level)}%, never shorter than they were (${by(one.requests)} of single ones)`;
}));

async function begin() {
  await load();
  const last = (await ask(`profile-runs?deployment=${page.deployment}&page_size=1`).catch(() => ({ results: [] }))).results[0];
  if (!page.may || !last || !$("far")) return;
  run = last;
  if (OPEN.includes(run.state)) follow();
  else if (run.state === "failed") far();
}

$("measure")?.addEventListener("submit", (event) => { event.preventDefault(); measure(false); });
$("anyway")?.addEventListener("click", () => measure(true));
$("call-off")?.addEventListener("click", () => ask(`profile-runs/${run.id}/cancel`, { reason: "" }).catch((error) => text($("measure-said"), error.message)));
$("size").addEventListener("submit", size);
new MutationObserver(() => chosen && choose(chosen)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
addEventListener("resize", () => chosen && choose(chosen));
begin();
