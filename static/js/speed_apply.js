// Has engines take the smallest batch that fills the GPU, by the profile that is shown: first what that does, then once more.
import { text } from "./dom.js";
import { number } from "./format.js";

const $ = (id) => document.getElementById(id), FLAG = "--max-num-batched-tokens";
let mine = null; // profile, deployment, and how the page asks
let would = null; // what applying it does
let sure = false; // that running engines may start again

/** Shows what applying this profile to the deployment would do. */
export async function offer(profile, deployment, page) {
  if (!$("apply")) return;
  if (mine?.profile === profile) return; // drawn anew: another theme or size
  mine = { profile, deployment, ...page };
  await look();
}

async function look(before = "") {
  sure = false;
  try {
    would = await mine.ask(`profiles/${mine.profile}/apply?dry_run=true`, { deployment: mine.deployment });
    show(before);
  } catch (error) {
    would = null;
    show(error.message);
  }
  $("apply").hidden = false;
}

function show(said) {
  const same = !would || would.before.join() === would.after.join(), which = would?.column === "prefill_args" ? "prefill engines" : "engines";
  $("apply-do").hidden = same;
  $("apply-why").hidden = $("apply-not").hidden = !sure;
  mine.notes($("apply-notes"), would?.notes ?? []);
  if (!would) { text($("apply-said"), said); return; }
  text($("apply-do"), sure ? `Start ${would.engines === 1 ? "it" : "them"} again with ${number(would.tokens)}` : `Have ${which} take ${number(would.tokens)} tokens a step`);
  $("apply-do").classList.toggle("danger", sure);
  const now = `The ${which} take ${told(would.before)} now.`, running = would.engines === 1 ? "1 running engine drains and starts again" : `${would.engines} running engines drain and start again at once`;
  text($("apply-said"), [said, same ? `The ${which} take ${number(would.tokens)} tokens a step, as this profile says.` : sure ? `${running}; until ${would.engines === 1 ? "it" : "the first"} is ready ${would.column === "prefill_args" ? "there is no prefill engine" : "nothing serves it"}.` : `${now} ${would.engines ? `${running} with another.` : "No engine runs: nothing ends."}`].filter(Boolean).join(" "));
}

const told = (args) => { const found = args.find((arg) => arg.replaceAll("_", "-").startsWith(`${FLAG}=`)); return found ? `${number(Number(found.split("=")[1]))} tokens a step` : args.some((arg) => arg.replaceAll("_", "-") === FLAG) ? "another number" : "what the engine takes by itself"; };

async function apply(event) {
  event.preventDefault();
  if (!would) return;
  if (would.engines && !sure) { sure = true; show(""); return; }
  $("apply-do").disabled = true;
  try {
    const done = await mine.ask(`profiles/${mine.profile}/apply`, { deployment: mine.deployment, force: sure, reason: $("apply").elements.reason.value });
    $("apply-undo").onclick = () => undo(done);
    $("apply-undo").hidden = false;
    await look("Done.");
  } catch (error) {
    await look(`Nothing was changed. ${error.message}`);
  }
  $("apply-do").disabled = false;
}

async function undo({ column, before }) {
  try {
    await mine.ask(`deployments/${mine.deployment}`, { [column]: before, force: true }, "PATCH");
    $("apply-undo").hidden = true;
    await look("It is as it was.");
  } catch (error) {
    await look(`Nothing was changed. ${error.message}`);
  }
}

$("apply")?.addEventListener("submit", apply);
$("apply-not")?.addEventListener("click", () => { sure = false; show(""); });
