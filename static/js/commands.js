// The palette's typed commands, "flip node-3/p1 to prefill": the server says what a sentence means, as pages to open.
const VERBS = /^\s*(flip|move|assign|release|cordon|uncordon|drain)\s+\S/i;
let asking = null, timer = null;

export function meant(url, sentence, done) {
  clearTimeout(timer);
  asking?.abort();
  if (!VERBS.test(sentence)) return;
  timer = setTimeout(async () => {
    asking = new AbortController();
    try {
      const response = await fetch(`${url}?q=${encodeURIComponent(sentence)}`, { headers: { Accept: "application/json" }, signal: asking.signal });
      if (response.ok) done((await response.json()).items);
    } catch { /* the next key asks again */ }
  }, 120);
}
