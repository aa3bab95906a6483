// Saves masks and keypoints: the state after every stroke, one request at a time for an image. While
// the server is away, a copy is kept in the browser, and saved when the server or the tab comes back.

import { Refused, image, isSample, request, requestApart } from "./api.js";
import { changed, entryOf, refresh, store, subscribe } from "./store.js";

const RETRY_MS = 1000;
const works = new Map(); // stem -> work
const placed = new Map(); // stem -> keypoints that are not saved
// Names of copies. The picture is a part of them: another project may come to the same folder.
const nameOf = (what, stem) => `studio ${what} ${store.project.folder} ${stem} ${entryOf(stem)?.sha ?? ""}`;
const key = (stem) => nameOf("mask", stem);
const pointsKey = (stem) => nameOf("points", stem);

// A copy, or null; one that cannot be read is removed.
function copyOf(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    localStorage.removeItem(name);
    return null;
  }
}

export function workOf(stem, tag) {
  const work = works.get(stem) ?? { stem, key: key(stem), tag, pixels: null, sending: false, problem: null };
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
  return [...[...works.values()].filter((work) => work.pixels !== null || work.sending), ...placed.values()];
}

// Until an image has nothing unsaved.
export function allSaved(stem) {
  return new Promise((resolve) => {
    const look = () => {
      if (isWaiting(stem) || placed.has(stem)) return;
      unsubscribe();
      resolve();
    };
    const unsubscribe = subscribe(look);
    look();
  });
}

export function save(stem, pixels) {
  const work = workOf(stem, "none");
  work.pixels = pixels.slice();
  work.problem = null;
  if (!store.online) keep(work, work.pixels); // the tab may be closed before the next attempt
  changed("saving");
  setTimeout(() => run(work)); // not in the task that ends the stroke
}

// What was refused since another tab held the image, which this one holds now.
export function saveAgain(stem) {
  const work = works.get(stem);
  if (work?.problem?.status !== 409) return;
  work.problem = null;
  run(work);
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
  localStorage.removeItem(work?.key ?? key(stem));
  changed("saving");
}

// The image was taken out of the set: there is nothing to save on.
function giveUp(work, reason) {
  Object.assign(work, { pixels: null, problem: null, sending: false });
  localStorage.removeItem(work.key);
  changed("refused", { stem: work.stem, message: `The stroke is not saved: ${reason}` });
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
      work.kept = work.reason = null;
      localStorage.removeItem(work.key);
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
        if (error.status === 404) {
          giveUp(work, error.message);
          break;
        }
        work.problem = error;
        if (error.status === 412) keep(work, pixels); // the tab may be closed before it is decided
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
    localStorage.setItem(work.key, JSON.stringify({ tag: work.tag, pixels: btoa(text) }));
  } catch {
    // No room: the tab itself still has the pixels.
  }
}

// What a closed tab could not save, and the tag of the mask that it was made from.
export function kept(stem, length) {
  const found = copyOf(key(stem));
  if (found === null) return null;
  const pixels = Uint8Array.from(atob(found.pixels), (letter) => letter.charCodeAt(0));
  if (pixels.length !== length) {
    localStorage.removeItem(key(stem));
    return null;
  }
  return { tag: found.tag, pixels };
}

// Keypoints [x, y, visible] of an image; null removes them.
export function savePoints(stem, points) {
  const entry = entryOf(stem);
  if (!entry) return; // it was taken out of the set
  const work = placed.get(stem) ?? { stem, key: pointsKey(stem), known: [exact(entry.points)], sending: false };
  placed.set(stem, work);
  work.points = entry.points = points;
  if (!store.online) keepPoints(work);
  changed("saving");
  if (!work.sending) runPoints(work);
}

async function runPoints(work) {
  const { stem } = work;
  let points, refused = null, saved;
  work.sending = true;
  do {
    points = work.points;
    if (work.known.at(-1) !== exact(points)) work.known.push(exact(points)); // the answer may be lost
    saved = false;
    try {
      await request("PUT", `${image(stem)}/points`, { body: JSON.stringify({ points }) });
      store.online = saved = true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status > 0 && error.status < 500) {
        refused = error;
        break;
      }
      keepPoints(work);
      store.online = error.status !== 0;
      work.reason = error.message;
      changed("saving");
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  } while (!saved || points !== work.points);
  placed.delete(stem);
  localStorage.removeItem(work.key);
  changed("saving");
  if (!refused) return;
  changed("refused", { stem, message: `Keypoints are not saved: ${refused.message}` });
  refresh(); // what the server has
}

const exact = (points) => JSON.stringify(points?.map((row) => row.map(Math.fround)) ?? null);

function keepPoints({ key, points, known }) {
  try {
    localStorage.setItem(key, JSON.stringify({ points, known }));
  } catch {
    // No room: the tab itself still has them.
  }
}

// Saves the keypoints that closed tabs could not save, of images that have none newer.
export function restorePoints() {
  for (const entry of store.project.images) {
    const copy = copyOf(pointsKey(entry.stem));
    if (copy === null) continue;
    const { points, known } = copy;
    if (known.includes(exact(entry.points))) savePoints(entry.stem, points);
    else localStorage.removeItem(pointsKey(entry.stem));
  }
}

// What the server tells of an image is older than what is on its way there.
subscribe((what) => {
  if (what !== "project" && what !== "saved") return;
  for (const work of works.values()) { // what waits for the person's word
    if (work.problem && !isSample(work.stem) && !entryOf(work.stem)) giveUp(work, "the image was taken out of the set");
  }
  for (const { stem, points } of placed.values()) {
    const entry = entryOf(stem);
    if (entry) entry.points = points;
  }
});
