// The tools. Each gets positions in image pixels: down, move, up; cancel leaves nothing behind.

import { Refused, image, request } from "./api.js";
import { flood, polygon, stroke } from "./raster.js";

const HOLD_MS = 450, GROW_MS = 110; // until a held selection grows, and between its steps

export class BrushTool {
  constructor(session, erases) {
    Object.assign(this, { session, erases });
    this.last = null;
  }

  down(at, { erase } = {}) {
    this.session.begin();
    this.value = this.erases || erase ? this.session.ignoreId : this.session.value;
    this.last = at;
    this.move(at);
  }

  move(at) {
    if (!this.last) return;
    const { session } = this;
    const radius = Math.max(0.5, session.settings.size / 2);
    stroke(session.width, session.height, this.last.x, this.last.y, at.x, at.y, radius, (index) => session.put(index, this.value));
    this.last = at;
    session.board.refresh();
  }

  up() {
    this.last = null;
    this.session.end();
  }

  cancel() {
    this.last = null;
    this.session.revert();
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
    flood(session.before, session.width, session.height, x, y, (index) => session.put(index, session.value));
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
    if (corners.length > 2) {
      session.begin();
      polygon(session.width, session.height, corners, (index) => session.put(index, session.value));
      session.end();
    }
    board.draw();
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
    this.turn = 0;
  }

  down(at, { shift } = {}) {
    this.forget();
    this.points = [];
    this.open = { shift, released: false, levels: null, turn: ++this.turn };
    this.move(at);
    this.ask(this.open);
  }

  move({ x, y }) {
    if (!this.open || this.open.released) return;
    const { width, height } = this.session;
    const point = [Math.floor(x), Math.floor(y)];
    const known = this.points.at(-1);
    if (point[0] < 0 || point[1] < 0 || point[0] >= width || point[1] >= height) return;
    if (!known || known[0] !== point[0] || known[1] !== point[1]) {
      this.points.push(point);
      if (this.points.length > 2) clearInterval(this.timer);
    }
  }

  async ask(open) {
    if (!this.points.length) return this.cancel();
    const { session } = this, asked = this.points.length;
    try {
      const answer = await request("POST", `${image(session.stem)}/select`, {
        body: JSON.stringify({ points: this.points, class_id: session.value }),
      });
      open.levels = new Uint8Array(await answer.arrayBuffer());
      open.level = Number(answer.headers.get("x-studio-level"));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      session.say(error.message, true);
      return this.cancel();
    }
    if (this.open !== open) return;
    session.board.showRegion(open.levels, open.level, session.color);
    if (open.released) {
      if (this.points.length > asked) this.ask(open);
      else this.commit(open);
    } else {
      const began = performance.now();
      this.timer = setInterval(() => {
        if (performance.now() - began < HOLD_MS) return;
        open.level = changedLevel(open.levels, open.level, open.shift ? -1 : 1);
        session.board.showRegion(open.levels, open.level, session.color);
      }, GROW_MS);
    }
  }

  up() {
    const { open } = this;
    if (!open) return;
    clearInterval(this.timer);
    open.released = true;
    if (!open.levels) return;
    if (this.points.length > 2) this.ask(open); // a scribble: once more, with all of it
    else this.commit(open);
  }

  commit(open) {
    const { session } = this;
    this.open = null;
    session.board.showRegion(null);
    session.begin();
    const before = session.before;
    this.paint(open);
    session.end();
    this.last = { ...open, before, value: session.value };
    session.update();
  }

  paint({ levels, level }, value = this.session.value) {
    const { session } = this;
    for (let i = 0; i < levels.length; i++) if (levels[i] <= level) session.put(i, value);
  }

  // The last selection, one step larger or smaller.
  adjust(by) {
    const { session, last } = this;
    if (!last || session.board.readOnly) return;
    last.level = changedLevel(last.levels, last.level, by);
    session.history.undo(session.mask, session.width);
    session.mask.set(last.before);
    session.begin();
    this.paint(last, last.value);
    session.end();
    session.keep();
  }

  forget() {
    this.last = null;
  }

  cancel() {
    clearInterval(this.timer);
    this.open = null;
    this.session.board.showRegion(null);
  }
}

// The next level whose region differs.
function changedLevel(levels, level, by) {
  const most = levels.reduce((found, value) => (value < 255 && value > found ? value : found), 0);
  const present = new Set(levels);
  if (by > 0) {
    for (let next = level + 1; next <= most; next++) if (present.has(next)) return next;
    return level;
  }
  let next = level;
  while (next > 0 && !present.has(next)) next--;
  next--;
  while (next > 0 && !present.has(next)) next--;
  return present.has(next) ? next : level;
}
