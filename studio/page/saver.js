// Saves masks and keypoints: the state after every stroke, one request at a time for each of them.
// What could not be saved is kept in the browser, too, and saved when the server or the tab comes
// back; what the server refuses waits for the person.

import { Refused, getJson, image, isSample, request, requestApart } from "./api.js";
import { copyOf, forgetCopy, keepCopy } from "./copies.js";
import { classesOfNow, idOf } from "./meaning.js";
import { changed, entryOf, heldElsewhere, reload, store, subscribe } from "./store.js";

const RETRY_MS = 1000;
const DECIDED = [400, 409, 412, 413]; // by the person, or by another tab; all else is tried again
const works = new Map(); // "mask 000" or "points 000" -> work

// `value`: what is not saved, {pixels, classes} or {points, names}; null: nothing.
function workOf(kind, stem) {
  const known = works.get(`${kind} ${stem}`);
  if (known) return known;
  const sha = entryOf(stem)?.sha ?? ""; // another project may come to the same folder
  const made = { kind, stem, sha, tag: "none", value: null, sending: false, problem: null, reason: null };
  works.set(`${kind} ${stem}`, made);
  return made;
}

const isOpen = (work) => work !== undefined && (work.value !== null || work.sending);
const ofStem = (stem) => ["mask", "points"].map((kind) => works.get(`${kind} ${stem}`)).filter(Boolean);

export function tagOf(stem) {
  return works.get(`mask ${stem}`)?.tag;
}

export function setTag(stem, tag) {
  Object.assign(workOf("mask", stem), { tag, problem: null });
}

// Whether the mask of an image is not saved.
export function isWaiting(stem) {
  return isOpen(works.get(`mask ${stem}`));
}

// The mask that is not saved, {pixels, classes}.
export function waitingMask(stem) {
  return works.get(`mask ${stem}`)?.value;
}

// All that is not saved; what has a problem is for the person to solve.
export function waiting() {
  return [...works.values()].filter(isOpen);
}

// What waits for the person's word on an image.
export function undecided(stem) {
  return heldElsewhere(stem) ? undefined : ofStem(stem).find((work) => work.value !== null && work.problem);
}

// Until an image has nothing unsaved.
export function allSaved(stem) {
  return new Promise((resolve) => {
    const look = () => {
      if (ofStem(stem).some(isOpen)) return;
      unsubscribe();
      resolve();
    };
    const unsubscribe = subscribe(look);
    look();
  });
}

export function save(stem, pixels, classes) {
  put(workOf("mask", stem), { pixels: pixels.slice(), classes });
}

function put(work, value) {
  Object.assign(work, { value, problem: null });
  if (!store.online) keepCopy(work); // the tab may be closed before the next attempt
  changed("saving");
  setTimeout(() => run(work)); // not in the task that ends the stroke
}

// What was refused since another tab held the image, which this one holds now.
export function saveAgain(stem) {
  for (const work of ofStem(stem)) if (work.problem?.status === 409) put(work, work.value);
}

// After a mask that is newer on disk: ours goes over it.
export function saveOver(stem) {
  const work = works.get(`mask ${stem}`);
  if (!work) return;
  work.over = true;
  put(work, work.value);
}

// The names of what was painted or placed and is in the lists no more.
export function namesGone({ kind, value }) {
  if (kind === "points") {
    const { names } = store.project.keypoints;
    return value.names.filter((name, k) => value.points?.[k]?.[2] && !names.includes(name));
  }
  const used = new Set(value.pixels);
  return value.classes.filter((card, id) => used.has(id) && idOf(value.classes, id) === undefined).map((card) => card.name);
}

// Saves what still has its class or its name, by the lists of now; the rest becomes unlabeled.
export function saveRest(work) {
  const { value } = work;
  if (work.kind === "points") {
    const { names } = store.project.keypoints;
    const points = value.points && names.map((name) => value.points[value.names.indexOf(name)] ?? [0, 0, 0]);
    return put(work, { points, names });
  }
  const table = new Uint8Array(256).fill(store.project.ignore_id);
  value.classes.forEach((_, id, list) => (table[id] = idOf(list, id) ?? store.project.ignore_id));
  put(work, { pixels: value.pixels.map((id) => table[id]), classes: classesOfNow() });
}

// Gives up what is not saved of an image.
export function drop(stem) {
  for (const work of ofStem(stem)) {
    Object.assign(work, { value: null, problem: null, reason: null });
    forgetCopy(work);
  }
  changed("saving");
}

// There is nothing to save on: the tab does not wait for it, and the browser keeps it.
function giveUp(work, reason) {
  keepCopy(work);
  Object.assign(work, { value: null, problem: null, reason: null, sending: false });
  const what = work.kind === "mask" ? "The stroke is" : "Keypoints are";
  changed("refused", { stem: work.stem, message: `${what} not saved: ${reason}` });
}

const SEND = {
  async mask(work, { pixels, classes }) {
    if (work.over) {
      const found = await request("GET", `${image(work.stem)}/mask`);
      work.tag = tagIn(found.headers.get("etag"));
      work.over = false;
    }
    const etag = await requestApart("PUT", `${image(work.stem)}/mask`, {
      body: pixels,
      headers: {
        "if-match": `"${work.tag}"`, "content-type": "application/octet-stream",
        "x-studio-classes": classes.map((card) => card.key).join(" "),
      },
    });
    work.tag = tagIn(etag);
    const entry = entryOf(work.stem);
    if (entry) entry.labelled = work.tag !== "none";
  },
  async points(work, { points, names }) {
    if (work.known.at(-1) !== exact(points)) work.known.push(exact(points)); // the answer may be lost
    await request("PUT", `${image(work.stem)}/points`, { body: JSON.stringify({ points, names }) });
    work.known = [exact(points)];
  },
};

function tagIn(etag) {
  if (etag === null) throw new Refused(502, "another program answers in the studio's place");
  return etag.replaceAll('"', "");
}

async function run(work) {
  if (work.sending) return;
  work.sending = true;
  while (work.value !== null && work.problem === null) {
    const { value } = work;
    try {
      await SEND[work.kind](work, value);
      store.online = true;
      work.reason = null;
      if (work.value !== value) continue;
      work.value = null;
      forgetCopy(work);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      keepCopy(work); // whatever it is, the tab may be closed before it is mended
      if (DECIDED.includes(error.status)) {
        if (error.status === 409) await reload().catch(() => {}); // the lists may have changed
        work.problem = error;
      } else if (error.status === 404 && await isGone(work.stem)) {
        giveUp(work, error.message);
      } else {
        store.online = error.status !== 0;
        work.reason = error;
        changed("saving");
        await new Promise((done) => setTimeout(done, RETRY_MS));
      }
    }
  }
  work.sending = false;
  changed("saving");
}

// Whether the studio itself says that there is no such image or sample: another program may answer
// at its address.
async function isGone(stem) {
  try {
    if (isSample(stem)) return !(await getJson("/api/review")).samples.some((sample) => sample.stem === stem);
    await reload();
    return !entryOf(stem);
  } catch {
    return false;
  }
}

// The mask that a closed tab could not save: {tag, pixels, classes}; or null.
export function kept(stem, length) {
  return copyOf(workOf("mask", stem), length);
}

// Keypoints [x, y, visible] of an image, by a list of names; null removes them.
export function savePoints(stem, points, names = store.project.keypoints.names) {
  const entry = entryOf(stem);
  if (!entry) return; // it was taken out of the set
  const work = workOf("points", stem);
  if (!isOpen(work)) work.known = [exact(entry.points)]; // what the server has
  // What was placed by an older list stays of that one.
  const older = work.value && work.value.names.some((name, k) => name !== names[k]);
  entry.points = points;
  put(work, { points, names: older ? work.value.names : names });
}

const exact = (points) => JSON.stringify(points?.map((row) => row.map(Math.fround)) ?? null);

// Saves the keypoints that closed tabs could not save, of images that have none newer.
export function restorePoints() {
  store.project.images.forEach(restoreOf);
}

const notYet = new Set(); // images that another tab held then, as does a closed one for a moment

function restoreOf(entry) {
  if (heldElsewhere(entry.stem)) return notYet.add(entry.stem);
  notYet.delete(entry.stem);
  const work = workOf("points", entry.stem);
  if (isOpen(work)) return; // this tab has newer ones
  const copy = copyOf(work);
  if (copy === null) return;
  if (copy.known.includes(exact(entry.points))) savePoints(entry.stem, copy.points, copy.names);
  else forgetCopy(work);
}

subscribe((what) => {
  if (what === "holds") [...notYet].map(entryOf).filter(Boolean).forEach(restoreOf);
});

// What the server tells of an image is older than what is on its way there.
subscribe((what) => {
  if (what !== "project" && what !== "saved") return;
  for (const work of works.values()) {
    if (work.value === null) continue;
    const entry = entryOf(work.stem);
    if (work.problem && !isSample(work.stem) && !entry) giveUp(work, "the image was taken out of the set");
    else if (work.kind === "points" && entry) entry.points = work.value.points;
  }
});
