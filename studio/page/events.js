// What the server tells this tab. All tabs of a browser share one stream, which a worker reads: a
// browser opens at most six connections to a server, and each stream keeps one.

import { TAB } from "./api.js";

export const KINDS = ["holds", "learn", "export", "review", "saved", "project"];
const RETRY_MS = 1000;
let worker = null;

// Calls `take` with a kind, "open" and "error" among them, and the text of an event.
export function listenTo(take) {
  if (!globalThis.SharedWorker) {
    const stream = new EventSource(`/api/events?tab=${TAB}`);
    for (const kind of ["open", "error", ...KINDS]) stream.addEventListener(kind, ({ data }) => take(kind, data));
    return;
  }
  // The lock lasts as long as the tab, however it ends; the worker waits for it.
  navigator.locks.request(TAB, () => {
    startWorker(take);
    return new Promise(() => {});
  });
}

function startWorker(take) {
  worker = new SharedWorker("/page/stream.js", { type: "module" });
  worker.addEventListener("error", () => { // its file cannot be read
    take("error");
    setTimeout(() => startWorker(take), RETRY_MS);
  });
  worker.port.addEventListener("message", ({ data: { kind, text } }) => take(kind, text));
  worker.port.start();
  worker.port.postMessage(TAB);
}
