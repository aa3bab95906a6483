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

export async function reload() {
  store.project = await getJson("/api/project");
  changed("project");
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
  let first = true;
  on("open", async () => {
    store.online = true;
    changed("online");
    if (!first) {
      await reload().catch(() => {});
      changed("again"); // what this tab held was free meanwhile
    }
    first = false;
  });
  on("error", () => {
    store.online = false;
    changed("online");
  });
  on("holds", (holds) => {
    store.project.holds = holds;
    changed("holds");
  });
  on("learn", (state) => {
    store.project.learn = state;
    changed("learn");
  });
  on("export", (state) => {
    store.project.export = state;
    changed("export");
  });
  on("review", () => changed("review"));
  on("saved", ({ stem, tag, tab }) => {
    const entry = entryOf(stem);
    if (entry && tag !== null) entry.labelled = tag !== "none";
    changed("saved", { stem, tag, tab });
  });
  on("project", () => reload().catch(() => {}));
  listenTo((kind, text) => takes[kind](text && JSON.parse(text)));
}
