// Steps of a mask: what a tool has changed since it began, what the next one begins with, and the
// way back. Areas are {left, top, right, bottom} in image pixels.

import { copyArea } from "./history.js";
import { united } from "./overlay.js";

export class Steps {
  // `board` has the mask and shows it; `history` outlives both.
  constructor(board, history) {
    Object.assign(this, { board, history, width: board.width, height: board.height });
    this.before = board.mask.slice(); // the mask without what a tool does now
    this.unlabeled = this.countUnlabeled(this.before, this.all); // pixels of it
    this.busy = false; // whether a tool has begun
    this.touched = null; // area that it may have changed so far
  }

  get all() {
    return { left: 0, top: 0, right: this.width, bottom: this.height };
  }

  // The share of pixels without a label.
  get gaps() {
    return this.unlabeled / this.before.length;
  }

  // Another mask than that which the tools have made.
  show(mask) {
    this.board.mask.set(mask);
    this.settle(this.all);
  }

  // What the mask has in an area is from now on what the next tool begins with.
  settle(area) {
    const { mask } = this.board;
    this.unlabeled += this.countUnlabeled(mask, area) - this.countUnlabeled(this.before, area);
    copyArea(mask, this.before, this.width, area);
    this.board.refresh(area);
  }

  countUnlabeled(mask, { left, top, right, bottom }) {
    const { ignoreId } = this.board;
    let count = 0;
    for (let row = top; row < bottom; row++) {
      for (let i = row * this.width + left; i < row * this.width + right; i++) if (mask[i] === ignoreId) count++;
    }
    return count;
  }

  // A tool begins; `before` has what its end is compared with.
  begin() {
    this.busy = true;
    this.touched = { left: 0, top: 0, right: 0, bottom: 0 };
  }

  // The tool may have changed an area.
  touch(area) {
    this.touched = this.touched.right ? united(this.touched, area) : area;
    this.board.refresh(area);
  }

  // The tool ends; it has changed nothing outside `area`. Returns the area that it has changed, or
  // null.
  end(area = this.all) {
    this.busy = false;
    const changed = this.history.note(this.before, this.board.mask, this.width, area);
    if (changed) this.settle(changed);
    return changed;
  }

  // The tool leaves nothing behind.
  revert() {
    if (!this.busy) return;
    this.busy = false;
    copyArea(this.before, this.board.mask, this.width, this.touched);
    this.board.refresh(this.touched);
  }

  // A step back, and forth; returns its area, or null.
  undo() {
    return this._went(this.history.undo(this.board.mask, this.width));
  }

  redo() {
    return this._went(this.history.redo(this.board.mask, this.width));
  }

  _went(area) {
    if (area) this.settle(area);
    return area;
  }
}
