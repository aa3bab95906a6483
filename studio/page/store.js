// What the page knows of the project, and who is told when it changes.

import { TAB, getJson } from "./api.js";
import { listenTo } from "./events.js";

// stale: why the project could not be read anew, and in how many seconds it is tried again; or null.
// aside: what of the browser's copies could not be read; or null.
export const store = { project: null, online: true, stale: null, aside: null };
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

const PAUSE_S = 1, LONGEST_S = 30;
let refreshing = 0, again = false;

// Reads the project until it is read, with pauses that grow; a later call takes the place of this
// one. `opened`: the stream of events is new, so that views read anew what is their own.
export async function refresh(opened = false) {
  const turn = ++refreshing;
  again ||= opened;
  for (let pause = PAUSE_S; ; pause = Math.min(2 * pause, LONGEST_S)) {
    const reason = await reload().then(() => null, (error) => error.message);
    if (turn !== refreshing) return;
    note(reason && { reason, pause });
    if (again && store.project) changed("again");
    if (!reason) return (again = false);
    await new Promise((done) => setTimeout(done, 1000 * pause));
    if (turn !== refreshing) return;
  }
}

function note(stale) {
  if (!stale && !store.stale) return;
  store.stale = stale;
  changed("online");
}

export function entryOf(stem) {
  return store.project.images.find((entry) => entry.stem === stem);
}

// What a table of the server has of an image; an object has more by itself, such as a constructor.
export const of = (stem, table) => (Object.hasOwn(table, stem) ? table[stem] : undefined);

export function isLabelled(entry) {
  return entry.labelled || entry.points !== null;
}

// Whether another tab holds an image.
export function heldElsewhere(stem) {
  const holder = of(stem, store.project.holds);
  return holder !== undefined && holder !== TAB;
}

export function listen() {
  const takes = {};
  const on = (kind, take) => (takes[kind] = take);
  on("open", () => {
    store.online = true;
    changed("online");
    refresh(true); // nobody told this tab of what happened before
  });
  on("error", () => {
    store.online = false;
    refreshing++; // it is read when the server is back
    store.stale = null;
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
  on("project", () => refresh());
  listenTo((kind, text) => {
    const take = () => takes[kind](text && JSON.parse(text));
    if (reading && kind !== "open" && kind !== "error") told.push(take);
    else take();
  });
}
