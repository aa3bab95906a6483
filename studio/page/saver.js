// Saves masks: the state after every stroke, one request at a time for an image. While the server
// is away, a copy is kept in the browser, and saved when the server or the tab comes back.

import { Refused, image, request, requestApart } from "./api.js";
import { changed, entryOf, store } from "./store.js";

const RETRY_MS = 1000;
const works = new Map(); // stem -> work
const key = (stem) => `studio ${store.project.folder} ${stem}`;

export function workOf(stem, tag) {
  const work = works.get(stem) ?? { stem, tag, pixels: null, sending: false, problem: null };
  works.set(stem, work);
  return work;
}

export function tagOf(stem) {
  return works.get(stem)?.tag;
}

export function setTag(stem, tag) {
  const work = workOf(stem, tag);
  work.tag = tag;
  work.problem = null;
}

export function isWaiting(stem) {
  const work = works.get(stem);
  return work !== undefined && (work.pixels !== null || work.sending);
}

// Unsaved images, of which some may have a problem that only the person can solve.
export function waiting() {
  return [...works.values()].filter((work) => work.pixels !== null || work.sending);
}

export function save(stem, pixels) {
  const work = workOf(stem, "none");
  work.pixels = pixels.slice();
  work.problem = null;
  if (!store.online) keep(work, work.pixels); // the tab may be closed before the next attempt
  changed("saving");
  setTimeout(() => run(work)); // not in the task that ends the stroke
}

// After a mask that is newer on disk: ours goes over it.
export function saveOver(stem) {
  const work = works.get(stem);
  if (!work) return;
  work.problem = null;
  work.over = true;
  run(work);
}

export function drop(stem) {
  const work = works.get(stem);
  if (work) Object.assign(work, { pixels: null, problem: null });
  localStorage.removeItem(key(stem));
  changed("saving");
}

async function run(work) {
  if (work.sending) return;
  while (work.pixels !== null && work.problem === null) {
    const pixels = work.pixels;
    work.sending = true;
    try {
      if (work.over) {
        const found = await request("GET", `${image(work.stem)}/mask`);
        work.tag = found.headers.get("etag").replaceAll('"', "");
        work.over = false;
      }
      const etag = await requestApart("PUT", `${image(work.stem)}/mask`, {
        body: pixels,
        headers: { "if-match": `"${work.tag}"`, "content-type": "application/octet-stream" },
      });
      work.tag = etag.replaceAll('"', "");
      store.online = true;
      if (work.pixels === pixels) work.pixels = null;
      work.kept = null;
      localStorage.removeItem(key(work.stem));
      const entry = entryOf(work.stem);
      if (entry) entry.labelled = work.tag !== "none";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 0 || error.status >= 500) {
        keep(work, pixels);
        store.online = error.status !== 0;
        work.reason = error.message;
        changed("saving");
        await new Promise((done) => setTimeout(done, RETRY_MS));
      } else {
        work.problem = error;
      }
    }
    work.sending = false;
  }
  changed("saving");
}

function keep(work, pixels) {
  if (work.kept === pixels) return;
  work.kept = pixels;
  let text = "";
  for (let i = 0; i < pixels.length; i += 8192) {
    text += String.fromCharCode(...pixels.subarray(i, i + 8192));
  }
  try {
    localStorage.setItem(key(work.stem), JSON.stringify({ tag: work.tag, pixels: btoa(text) }));
  } catch {
    // No room: the tab itself still has the pixels.
  }
}

// What a closed tab could not save, if the mask on disk is still the one that it had.
export function kept(stem, tag, length) {
  const text = localStorage.getItem(key(stem));
  if (text === null) return null;
  const found = JSON.parse(text);
  const pixels = Uint8Array.from(atob(found.pixels), (letter) => letter.charCodeAt(0));
  if (found.tag !== tag || pixels.length !== length) {
    localStorage.removeItem(key(stem));
    return null;
  }
  return pixels;
}
