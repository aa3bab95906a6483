// A worker that all tabs share: reads one stream of events for all of them. When a tab comes or
// goes, a new stream takes the place of the last one, which is closed once the new one is open, so
// that no tab is without and none loses what it holds.

import { KINDS } from "./events.js";

const MOST = 64; // tabs of a stream
const RETRY_MS = 1000;
const ports = new Map(); // tab -> its port
let stream = null, next = null, again = false;

addEventListener("connect", ({ ports: [port] }) => {
  port.addEventListener("message", ({ data: tab }) => {
    ports.set(tab, port);
    renew();
    navigator.locks.request(tab, () => {
      ports.delete(tab);
      renew();
    });
  });
  port.start();
});

function tell(kind, text) {
  for (const port of ports.values()) port.postMessage({ kind, text });
}

function renew() {
  if (!ports.size) {
    stream?.close();
    next?.close();
    stream = next = null;
    return;
  }
  again = next !== null;
  if (again) return;
  const tabs = [...ports.keys()].slice(-MOST);
  const made = new EventSource(`/api/events?${tabs.map((tab) => `tab=${tab}`).join("&")}`);
  next = made;
  made.addEventListener("open", () => opened(made));
  made.addEventListener("error", () => failed(made));
  for (const kind of KINDS) made.addEventListener(kind, ({ data }) => tell(kind, data));
}

function opened(made) {
  if (made === next) {
    stream?.close();
    [stream, next] = [made, null];
  }
  tell("open"); // all tabs: what the last stream had not handed over yet is lost
  if (again) renew();
}

function failed(made) {
  if (made === stream && next) {
    stream.close(); // the next one has its tabs
    stream = null;
    return;
  }
  tell("error");
  if (made.readyState !== EventSource.CLOSED) return; // it comes again by itself
  if (made === next) next = null;
  else stream = null;
  setTimeout(renew, RETRY_MS);
}
