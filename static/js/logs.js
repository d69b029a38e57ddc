// Follows one engine's log: asks for what lies past the last piece, and stays at the end unless somebody scrolled up.
const KEEP = 200_000;
let timer = null;

export function follow() {
  const box = document.getElementById("log");
  if (!box) return;
  let offset = -1, end = -1, stopped = false;
  const state = document.getElementById("log-state");
  const ask = async () => {
    if (document.hidden || stopped) return;
    try {
      const response = await fetch(`/api/v1/partitions/${box.dataset.partition}/logs?offset=${offset}`, { headers: { Accept: "application/json" } });
      const body = await response.json().catch(() => ({}));
      if (!response.ok) { state.textContent = body.detail || `not available (status ${response.status})`; stopped = response.status === 403; return; }
      if (body.offset !== end && end !== -1 && offset !== -1) add(box, body.offset > end ? "\n[… a piece is missing …]\n" : "\n[… the log began anew …]\n");
      if (body.text) { add(box, body.text); end = body.next_offset; offset = body.next_offset; }
      state.textContent = { live: "live", waiting: box.textContent ? "waiting for more" : "waiting for the agent", silent: box.textContent ? "the node is silent; this is the last that came" : "the node is silent; nothing of this log came" }[body.state] || body.state;
    } catch {
      state.textContent = "server unreachable; trying again";
    }
  };
  ask();
  clearInterval(timer);
  timer = setInterval(ask, 1500);
}

function add(box, text) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.append(text);
  if (box.textContent.length > KEEP) box.textContent = box.textContent.slice(-KEEP / 2);
  if (atEnd) box.scrollTop = box.scrollHeight;
}
