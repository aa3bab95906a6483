// Copies in the browser of what is not saved, for a tab that is closed before it is.

import { isSample } from "./api.js";
import { changed, store } from "./store.js";

// Each part without a space of its own, so that no name begins as those of another project do.
const nameOf = ({ kind, stem, sha }) => ["studio", kind, ...[store.project.folder, stem, sha].map(encodeURIComponent)].join(" ");

// The texts of copies, and what they must be.
const KINDS = {
  mask: {
    text: ({ tag, value }) => JSON.stringify({ tag, pixels: base64(value.pixels), classes: value.classes }),
    read({ tag, pixels, classes }, length) {
      const found = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0));
      check(WORD.test(tag) && found.length === length && classes.length <= 256 && classes.every(({ name, key }) => isText(name) && WORD.test(key)));
      return { tag, pixels: found, classes };
    },
  },
  points: {
    text: ({ value, known }) => JSON.stringify({ ...value, known }),
    read({ points, names, known }) {
      check(points === null || points.every((row) => row.length === 3 && row.every(Number.isFinite)));
      check(names.every(isText) && known.every(isText));
      check(points === null || points.length === names.length);
      return { points, names, known };
    },
  },
};

const WORD = /^[0-9a-z]+$/; // that goes into a header
const isText = (value) => typeof value === "string";
function check(right) {
  if (!right) throw new TypeError("this is no copy");
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

// The copy of a work, or null. One that cannot be read is put aside, and the person is told.
export function copyOf(work, length) {
  const text = localStorage.getItem(nameOf(work));
  if (text === null) return null;
  try {
    return KINDS[work.kind].read(JSON.parse(text), length);
  } catch {
    forgetCopy(work);
    store.aside = `What this browser kept of image ${work.stem} cannot be read and is not used.`;
    write(`aside ${nameOf(work)}`, text);
    changed("saving");
    return null;
  }
}

export function keepCopy(work) {
  if (work.value === null || work.copied === work.value) return;
  const text = KINDS[work.kind].text(work);
  work.copied = write(nameOf(work), text) || (makeRoom(), write(nameOf(work), text)) ? work.value : null;
}

// Whether a tab that is closed now would lose a work.
export const isAtRisk = (work) => (work.problem || work.reason) && work.copied !== work.value;

export function forgetCopy(work) {
  work.copied = null;
  localStorage.removeItem(nameOf(work));
}

function write(name, text) {
  try {
    localStorage.setItem(name, text);
    return true;
  } catch {
    return false; // no room: the tab itself still has it
  }
}

// Removes what nobody can use any more: copies put aside, and those of images that are gone.
function makeRoom() {
  const { folder, images } = store.project, used = new Set(images.map(({ stem, sha }) => encodeURIComponent(stem) + sha));
  for (const name of Object.keys(localStorage)) {
    const [first, , of, stem, sha] = name.split(" ");
    const gone = first === "studio" && of === encodeURIComponent(folder) && !isSample(stem) && !used.has(stem + sha);
    if (first === "aside" || gone) localStorage.removeItem(name);
  }
}
