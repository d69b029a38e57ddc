// The strip above the map: what the whole fleet does.
import { text } from "./dom.js";
import { number, unit, UNKNOWN } from "./format.js";
import { store } from "./live.js";

export function summary() {
  const s = store.summary;
  if (!s) return;
  const put = (id, value, sub) => { text(document.getElementById(`k-${id}`), value); if (sub !== undefined) text(document.getElementById(`k-${id}-sub`), sub); };
  put("gpus", `${number(s.gpus.assigned)} of ${number(s.gpus.total)}`, `${number(s.gpus.idle)} idle, ${number(s.gpus.unhealthy)} unhealthy`);
  put("nodes", number(s.nodes.total), s.nodes.silent ? `${number(s.nodes.silent)} silent` : s.nodes.total ? "all reporting" : "none has joined yet");
  put("models", number(s.active_models), s.window_s ? `in the last ${number(s.window_s)} s` : "no request figures yet");
  const none = !s.window_s ? "no request figures" : s.rps ? `not told by those of the last ${number(s.window_s)} s` : `no request in ${number(s.window_s)} s`;
  for (const key of ["ttft_ms", "itl_ms"]) put(key, unit(s[key]?.p95, "ms"), s[key]?.p50 == null ? none : `p50 ${unit(s[key].p50, "ms")}`);
  put("out", unit(s.tokens_out_per_s, "tok/s"), s.rps == null ? UNKNOWN : `${number(s.rps, 1)} requests/s`);
  document.getElementById("k-nodes-sub").classList.toggle("warned", s.nodes.silent > 0);
  document.getElementById("k-gpus-sub").classList.toggle("warned", s.gpus.unhealthy > 0);
}
