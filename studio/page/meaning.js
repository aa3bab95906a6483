// What class ids mean: a mask says by which classes it was made, {name, key} by id, and the project
// has for each class the keys of all names that it has had. So a class that was renamed is the same,
// and one that took the id of another is not.

import { store } from "./store.js";

export const classesOfNow = () => store.project.classes.map(({ name, keys }) => ({ name, key: keys.at(-1) }));

// Whether the ids of classes mean the same now.
export const meanTheSame = (classes) => classes.every((card, id) => store.project.classes[id]?.keys.includes(card.key));

// The id that a class of a list has now; undefined: it is gone. It is where it was, unless another
// program has moved it; one that has its name by now, and was another class in the list, is another.
export function idOf(list, id) {
  const { classes } = store.project;
  const stays = (at) => list[at] !== undefined && classes[at]?.keys.includes(list[at].key);
  if (stays(id)) return id;
  const found = classes.findIndex((card, at) => card.keys.at(-1) === list[id].key && !stays(at));
  return found < 0 ? undefined : found;
}

// Whether the class of an id is gone, or has another by now; ids without a class stay what they are.
export const isGone = (list, id) => list[id] !== undefined && idOf(list, id) !== id;

// The classes by which an answer has ids; samples of the review have those of now.
export function classesIn({ headers }) {
  const now = classesOfNow(), keys = headers.get("x-studio-classes");
  return keys === null ? now : keys.split(" ").filter(Boolean).map((key, id) => ({ key, name: now[id]?.name ?? `class ${id + 1}` }));
}
