// The tools. Each gets positions in image pixels: down, move, up; cancel leaves nothing behind.

import { Refused, image, request } from "./api.js";
import { classesOfNow, isGone } from "./meaning.js";
import { flood, polygon, stroke } from "./raster.js";

const HOLD_MS = 450, GROW_MS = 110; // until a held selection grows, and between its steps
const SLOW_MS = 500, MAX_POINTS = 4096;

export class BrushTool {
  constructor(session, erases) {
    Object.assign(this, { session, erases });
    this.last = null;
  }

  down(at) {
    this.session.begin();
    this.value = this.erases ? this.session.ignoreId : this.session.value;
    this.last = at;
    this.move(at);
  }

  move(at) {
    if (!this.last) return;
    const { session } = this;
    const radius = Math.max(0.5, session.settings.size / 2);
    const area = stroke(session.width, session.height, this.last.x, this.last.y, at.x, at.y, radius, (index) => session.put(index, this.value));
    this.last = at;
    if (area) session.steps.touch(area);
  }

  up() {
    this.last = null;
    this.session.end(this.session.steps.touched);
  }

  cancel() {
    this.last = null;
    this.session.steps.revert();
  }
}

export class FillTool {
  constructor(session) {
    this.session = session;
  }

  down({ x, y }) {
    const { session } = this;
    if (x < 0 || y < 0 || x >= session.width || y >= session.height) return;
    session.begin();
    flood(session.steps.before, session.width, session.height, x, y, (index) => session.put(index, session.value));
    session.end();
  }

  move() {}
  up() {}
  cancel() {}
}

export class PolygonTool {
  constructor(session) {
    this.session = session;
  }

  down({ x, y }) {
    const { board } = this.session;
    const corners = board.outline ?? [];
    const first = corners[0];
    if (corners.length > 2 && Math.hypot(first[0] - x, first[1] - y) * board.scale < 10) return this.finish();
    board.outline = [...corners, [x, y]];
    board.draw();
  }

  move() {}
  up() {}

  finish() {
    const { session } = this, { board } = session;
    const corners = board.outline ?? [];
    board.outline = null;
    if (corners.length > 2 && !board.readOnly) {
      session.begin();
      polygon(session.width, session.height, corners, (index) => session.put(index, session.value));
      session.end();
    }
    board.draw();
  }

  // Without its last corner.
  undo() {
    this.session.board.outline = this.session.board.outline.slice(0, -1);
    this.session.board.draw();
  }

  cancel() {
    this.session.board.outline = null;
    this.session.board.draw();
  }
}

export class SmartTool {
  constructor(session) {
    this.session = session;
    this.last = null; // the selection painted last, which can still grow and shrink
    this.held = null; // the selection whose pointer is down
  }

  down(at, { shift } = {}) {
    const { session } = this;
    this.forget();
    this.held = { points: [], value: session.value, color: session.color, classes: classesOfNow(), shift, released: false, levels: null };
    this.move(at);
    this.ask(this.held);
  }

  move({ x, y }) {
    const { width, height } = this.session, { held } = this;
    if (!held) return;
    const point = [Math.floor(x), Math.floor(y)], known = held.points.at(-1);
    if (point[0] < 0 || point[1] < 0 || point[0] >= width || point[1] >= height) return;
    if (known && known[0] === point[0] && known[1] === point[1]) return;
    held.points.push(point);
    if (held.points.length > 2) clearInterval(held.timer); // a scribble does not grow
  }

  // A selection that was released is painted when its answer comes, whatever is held by then.
  async ask(chosen) {
    if (!chosen.points.length) return;
    const { session } = this, asked = chosen.points.length;
    const slow = setTimeout(() => session.say("Reading the generator's features of this image; the next click is quick."), SLOW_MS);
    try {
      const answer = await request("POST", `${image(session.stem)}/select`, {
        body: JSON.stringify({ points: chosen.points.slice(0, MAX_POINTS), class_id: chosen.value, proposed: session.proposed }),
      });
      chosen.levels = new Uint8Array(await answer.arrayBuffer());
      chosen.present = levelsIn(chosen.levels);
      chosen.level = Number(answer.headers.get("x-studio-level"));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      session.say(error.message, true);
      chosen.cancelled = true;
    } finally {
      clearTimeout(slow);
    }
    if (chosen.cancelled || session.closed) return;
    if (chosen.released) {
      if (chosen.points.length > asked && asked < MAX_POINTS) this.ask(chosen);
      else this.commit(chosen);
      return;
    }
    session.board.showRegion(chosen.levels, chosen.level, chosen.color);
    const began = performance.now();
    chosen.timer = setInterval(() => {
      if (performance.now() - began < HOLD_MS) return;
      chosen.level = changedLevel(chosen.present, chosen.level, chosen.shift ? -1 : 1);
      session.board.showRegion(chosen.levels, chosen.level, chosen.color);
    }, GROW_MS);
  }

  up() {
    const { held } = this;
    if (!held) return;
    this.held = null;
    clearInterval(held.timer);
    held.released = true;
    if (!held.levels) return;
    if (held.points.length > 2) this.ask(held); // once more, with all of the scribble
    else this.commit(held);
  }

  commit(chosen) {
    const { session } = this;
    if (session.steps.busy) return setTimeout(() => this.commit(chosen), GROW_MS); // a stroke is going on
    if (!this.held) session.board.showRegion(null);
    if (session.board.readOnly) return;
    if (isGone(chosen.classes, chosen.value)) return session.say("The class of that selection is gone; select it again.");
    this.paint(chosen);
    session.update();
  }

  paint(chosen) {
    const { session } = this, { levels, level, value } = chosen;
    session.begin();
    for (let i = 0; i < levels.length; i++) if (levels[i] <= level) session.put(i, value);
    chosen.noted = session.end();
    this.last = chosen;
  }

  // The last selection, one step larger or smaller.
  adjust(by) {
    const { session, last } = this;
    if (!last || session.board.readOnly || session.steps.busy || isGone(last.classes, last.value)) return;
    last.level = changedLevel(last.present, last.level, by);
    const area = last.noted ? session.steps.undo() : null;
    this.paint(last);
    if (area && !last.noted) session.keep(); // it has become nothing
  }

  forget() {
    this.last = null;
  }

  cancel() {
    if (this.held) {
      clearInterval(this.held.timer);
      this.held.cancelled = true;
      this.held = null;
    }
    this.session.board.showRegion(null);
  }
}

// The levels that pixels have, ascending.
function levelsIn(levels) {
  const found = new Uint8Array(256);
  for (let i = 0; i < levels.length; i++) found[levels[i]] = 1;
  return [...found.keys()].filter((level) => found[level] && level < 255);
}

// The next level whose region differs.
function changedLevel(present, level, by) {
  if (by > 0) return present.find((other) => other > level) ?? level;
  const within = present.filter((other) => other <= level);
  return within.at(-2) ?? level;
}
