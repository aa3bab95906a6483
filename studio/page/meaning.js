// What class ids mean: a mask says by which classes it was made, {name, key} by id, and the project
// has for each class the keys of all names that it has had. So a class that was renamed is the same,
// and one that took the id of another is not.

import { store } from "./store.js";

export const classesOfNow = () => store.project.classes.map(({ name, keys }) => ({ name, key: keys.at(-1) }));

// Whether the ids of classes mean the same now.
export const meanTheSame = (classes) => classes.every((card, id) => store.project.classes[id]?.keys.includes(card.key));

// The id that a class has now; undefined: it is gone.
export function idOf({ key }) {
  const id = store.project.classes.findIndex((card) => card.keys.includes(key));
  return id < 0 ? undefined : id;
}

// The classes by which an answer has ids; samples of the review have those of now.
export function classesIn({ headers }) {
  const now = classesOfNow(), keys = headers.get("x-studio-classes");
  return keys === null ? now : keys.split(" ").filter(Boolean).map((key, id) => ({ key, name: now[id]?.name ?? `class ${id + 1}` }));
}
