// What the page knows of the project, and who is told when it changes.

import { TAB, getJson } from "./api.js";
import { listenTo } from "./events.js";

export const store = { project: null, online: true };
const listeners = new Set();

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function changed(what, content) {
  for (const listener of [...listeners]) listener(what, content);
}

const STATES = ["holds", "learn", "export"]; // that are told whole, each as an event of its own

let reading = 0, asked = 0, answered = 0;
const told = []; // by the server while the project is read; the answer may be older

// Reads the project, and tells what is new in it.
export async function reload() {
  reading++;
  const turn = ++asked;
  try {
    const now = await getJson("/api/project"), before = store.project ?? {};
    if (turn < answered) return; // that of a later request was quicker
    answered = turn;
    store.project = now;
    const differ = (kind) => JSON.stringify(now[kind]) !== JSON.stringify(before[kind]);
    if (Object.keys(now).some((kind) => !STATES.includes(kind) && differ(kind))) changed("project");
    for (const kind of STATES) if (differ(kind)) changed(kind);
  } finally {
    reading--;
    while (!reading && told.length) told.shift()();
  }
}

export function entryOf(stem) {
  return store.project.images.find((entry) => entry.stem === stem);
}

export function isLabelled(entry) {
  return entry.labelled || entry.points !== null;
}

// Whether another tab holds an image.
export function heldElsewhere(stem) {
  const holder = store.project.holds[stem];
  return holder !== undefined && holder !== TAB;
}

export function listen() {
  const takes = {};
  const on = (kind, take) => (takes[kind] = take);
  on("open", async () => {
    store.online = true;
    changed("online");
    await reload().catch(() => {}); // nobody told this tab of what happened before
    changed("again");
  });
  on("error", () => {
    store.online = false;
    changed("online");
  });
  for (const kind of STATES) {
    on(kind, (state) => {
      store.project[kind] = state;
      changed(kind);
    });
  }
  on("review", () => changed("review"));
  on("saved", ({ stem, tag, tab, points }) => {
    const entry = entryOf(stem);
    if (entry && tag !== null) entry.labelled = tag !== "none";
    else if (entry) entry.points = points;
    changed("saved", { stem, tag, tab });
  });
  on("project", () => reload().catch(() => {}));
  listenTo((kind, text) => {
    const take = () => takes[kind](text && JSON.parse(text));
    if (reading && kind !== "open" && kind !== "error") told.push(take);
    else take();
  });
}
