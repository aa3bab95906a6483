// Undo and redo of one image: the rectangle that a step has changed, before and after.

import { classesOfNow, meanTheSame } from "./meaning.js";

const MAX_STEPS = 200;
const histories = new Map(); // stem -> history, for as long as the page is loaded
let meant = []; // the classes that their ids are of

export function historyOf(stem) {
  const found = histories.get(stem) ?? new History();
  histories.set(stem, found);
  return found;
}

// A step back to ids that mean another class by now would paint what nobody has painted. Returns the
// classes of the last call.
export function forgetOldSteps() {
  const before = meant;
  if (!meanTheSame(before)) for (const one of histories.values()) one.clear();
  meant = classesOfNow();
  return before;
}

class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.done = [];
    this.undone = [];
  }

  // Notes what has changed from `before` to `mask` within an area; returns the area of that, null:
  // nothing has.
  note(before, mask, width, within) {
    let left = within.right, right = -1, top = within.bottom, bottom = -1;
    for (let row = within.top; row < within.bottom; row++) {
      for (let column = within.left; column < within.right; column++) {
        if (before[row * width + column] === mask[row * width + column]) continue;
        if (column < left) left = column;
        if (column > right) right = column;
        if (row < top) top = row;
        bottom = row;
      }
    }
    if (right < 0) return null;
    const area = { left, top, width: right - left + 1, height: bottom - top + 1 };
    this.done.push({ area, before: cut(before, width, area), after: cut(mask, width, area) });
    this.undone = [];
    if (this.done.length > MAX_STEPS) this.done.shift();
    return edges(area);
  }

  undo(mask, width) {
    const step = this.done.pop();
    if (!step) return null;
    paste(mask, width, step.area, step.before);
    this.undone.push(step);
    return edges(step.area);
  }

  redo(mask, width) {
    const step = this.undone.pop();
    if (!step) return null;
    paste(mask, width, step.area, step.after);
    this.done.push(step);
    return edges(step.area);
  }
}

function edges({ left, top, width, height }) {
  return { left, top, right: left + width, bottom: top + height };
}

// Copies an area, {left, top, right, bottom}, from one mask to another.
export function copyArea(from, to, width, { left, top, right, bottom }) {
  for (let row = top; row < bottom; row++) {
    to.set(from.subarray(row * width + left, row * width + right), row * width + left);
  }
}

function cut(mask, width, area) {
  const part = new Uint8Array(area.width * area.height);
  for (let row = 0; row < area.height; row++) {
    const from = (area.top + row) * width + area.left;
    part.set(mask.subarray(from, from + area.width), row * area.width);
  }
  return part;
}

function paste(mask, width, area, part) {
  for (let row = 0; row < area.height; row++) {
    const line = part.subarray(row * area.width, (row + 1) * area.width);
    mask.set(line, (area.top + row) * width + area.left);
  }
}
