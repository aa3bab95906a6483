// The canvas: image, mask and what is drawn on top; zoom and pan; pointers, pen, touch and keys
// become positions in image pixels for the tool in use. A frame draws no more than the areas that
// have changed since the last: an area is {left, top, right, bottom} in image pixels.

import { colorsOf, maskCanvas, paintGaps, paintMask, united } from "./overlay.js";

const MIN_SHOWN = 0.5, MAX_SCALE = 64;
const ERASER = 32; // among the buttons of a pen
const MARGIN = 10; // CSS pixels around a cursor that its lines may reach
const JOINTS = ["#ff595e", "#ffca3a", "#8ac926", "#19b6d6", "#6a7fff", "#d66fff", "#ffffff", "#ff8c14"];

export class Board {
  constructor(canvas, width, height, classes, ignoreId) {
    Object.assign(this, { canvas, width, height, ignoreId });
    this.context = canvas.getContext("2d");
    this.layer = maskCanvas(width, height); // the mask
    this.region = maskCanvas(width, height); // a selection that is not yet painted
    this.gaps = null; // what is unlabeled, once it was shown
    this.table = colorsOf(classes, ignoreId);
    this.mask = new Uint8Array(width * height).fill(ignoreId);
    this.picture = null;
    this.opacity = 0.6;
    this.scale = 1;
    this.x = this.y = 0; // of the image's corner, CSS pixels
    this.cursor = null; // image pixels, under the pointer or moved by keys
    this.byKeys = false;
    this.showMask = true;
    this.regionShown = false;
    this.outline = null; // corners of an open polygon
    this.points = null; // {rows, names, skeleton, active}
    this.size = 8; // brush diameter, image pixels
    this.round = true; // whether the tool has a brush
    this.tool = null;
    this.eraser = null; // the tool of a pen's other end, whatever the tool is
    this.panning = false;
    this.looking = false; // another tab holds the image
    this.locked = false; // what is not saved waits for the person's word
    this._used = null; // the tool that a pointer or the space bar has put down last
    this._pointers = new Map();
    this._asked = false; // for a frame
    this._stale = null; // area of the mask whose colors are old
    this._dirty = null; // area to draw again
    this._all = false; // whether that is the whole canvas
    this._observer = new ResizeObserver(() => this._resized());
    this._observer.observe(canvas);
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this[`_${kind}`](event));
    }
    canvas.addEventListener("pointerleave", () => {
      if (!this.byKeys && !this._pointers.size) this._moveCursor(null);
    });
    canvas.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this._keydown(event));
    canvas.addEventListener("keyup", (event) => this._keyup(event));
    canvas.addEventListener("blur", () => this._endKeys());
  }

  close() {
    this._observer.disconnect();
  }

  get readOnly() {
    return this.looking || this.locked;
  }

  // Ends what the tool does now, as if the pointer were let go.
  finish() {
    this._endKeys();
    if (!this._active) return;
    this._used?.up();
    this._active = false;
    this._pointers.clear(); // which are down still, and move nothing until they come again
  }

  setColors(classes) {
    this.table = colorsOf(classes, this.ignoreId);
    this.refresh();
  }

  // The mask has changed, all of it or within an area; it is drawn with the next frame.
  refresh(area) {
    const all = { left: 0, top: 0, right: this.width, bottom: this.height };
    this._stale = united(this._stale, area ?? all);
    this.draw(area);
  }

  draw(area) {
    if (area) this._dirty = united(this._dirty, area);
    else this._all = true;
    if (this._asked) return;
    this._asked = true;
    requestAnimationFrame(() => this._frame());
  }

  get showGaps() {
    return this.gaps !== null;
  }

  set showGaps(shown) {
    this.gaps = shown ? maskCanvas(this.width, this.height) : null;
    this.refresh();
  }

  _frame() {
    if (this._stale) {
      paintMask(this.layer.context, this.mask, this.width, this.table, this._stale);
      if (this.gaps) paintGaps(this.gaps.context, this.mask, this.width, this.ignoreId, this._stale);
    }
    const area = this._all ? null : this._dirty;
    this._asked = this._all = false;
    this._stale = this._dirty = null;
    this._paint(area);
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    this.scale = Math.max(0.05, Math.min((clientWidth - 32) / this.width, (clientHeight - 32) / this.height));
    if (this.scale > 1) this.scale = Math.floor(this.scale * 4) / 4;
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.draw();
  }

  zoom(factor, atX = this.canvas.clientWidth / 2, atY = this.canvas.clientHeight / 2) {
    const scale = Math.min(MAX_SCALE, Math.max(MIN_SHOWN / 4, this.scale * factor));
    this.x = atX - ((atX - this.x) * scale) / this.scale;
    this.y = atY - ((atY - this.y) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }

  showRegion(levels, level, color) {
    this.regionShown = levels !== null;
    if (levels) {
      const part = this.region.context.createImageData(this.width, this.height);
      const out = new Uint32Array(part.data.buffer);
      const [r, g, b] = color, full = (255 << 24) | (b << 16) | (g << 8) | r;
      for (let i = 0; i < levels.length; i++) {
        if (levels[i] > level) continue;
        const column = i % this.width;
        const inner = column > 0 && column < this.width - 1 && levels[i - 1] <= level &&
          levels[i + 1] <= level && levels[i - this.width] <= level && levels[i + this.width] <= level;
        out[i] = inner ? full : 0xffffffff;
      }
      this.region.context.putImageData(part, 0, 0);
    }
    this.draw();
  }

  _resized() {
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.fit();
  }

  // An area, or the whole canvas.
  _paint(area) {
    const { context, width, height, scale } = this, ratio = devicePixelRatio;
    const all = { left: 0, top: 0, right: this.canvas.width, bottom: this.canvas.height };
    const box = area === null ? all : this._onCanvas(area);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    context.clip();
    context.clearRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * this.x, ratio * this.y);
    if (this.picture) {
      context.imageSmoothingEnabled = scale < 12;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.picture, 0, 0, width, height);
    }
    context.imageSmoothingEnabled = false;
    if (this.showMask) this._layer(this.layer, this.opacity);
    if (this.regionShown) this._layer(this.region, 0.85);
    if (this.gaps) this._layer(this.gaps, 0.55);
    this._paintOutline();
    this._paintPoints();
    this._paintCursor();
    context.restore();
  }

  _layer(layer, opacity) {
    this.context.globalAlpha = opacity;
    this.context.drawImage(layer.canvas, 0, 0);
    this.context.globalAlpha = 1;
  }

  // The whole device pixels that an area touches, and one more on each side for smoothed edges.
  _onCanvas({ left, top, right, bottom }) {
    const ratio = devicePixelRatio, { scale, x, y, canvas } = this;
    return {
      left: Math.max(0, Math.floor(ratio * (x + scale * left)) - 1),
      top: Math.max(0, Math.floor(ratio * (y + scale * top)) - 1),
      right: Math.min(canvas.width, Math.ceil(ratio * (x + scale * right)) + 1),
      bottom: Math.min(canvas.height, Math.ceil(ratio * (y + scale * bottom)) + 1),
    };
  }

  _moveCursor(to) {
    const from = this.cursor;
    this.cursor = to;
    if (this.outline?.length) return this.draw(); // its last line follows the cursor
    for (const at of [from, to]) if (at) this.draw(this._aroundCursor(at));
  }

  _aroundCursor({ x, y }) {
    const r = (this.round ? Math.max(this.size / 2, 0.5) : 0) + MARGIN / this.scale;
    return { left: x - r, top: y - r, right: x + r, bottom: y + r };
  }

  // Twice, dark and light, so that it shows on anything.
  _stroked(path) {
    const { context, scale } = this;
    for (const [color, wide] of [["#000000", 3], ["#ffffff", 1.2]]) {
      context.strokeStyle = color;
      context.lineWidth = wide / scale;
      context.beginPath();
      path(context);
      context.stroke();
    }
  }

  _paintOutline() {
    if (!this.outline?.length) return;
    const corners = this.cursor ? [...this.outline, [this.cursor.x, this.cursor.y]] : this.outline;
    this._stroked((context) => {
      corners.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      const [x, y] = this.outline[0], r = 4 / this.scale;
      context.moveTo(x + r, y);
      context.arc(x, y, r, 0, 7);
    });
  }

  _paintPoints() {
    if (!this.points) return;
    const { rows, skeleton, names, active } = this.points, { context, scale } = this;
    this._stroked((path) => {
      for (const [a, b] of skeleton) {
        if (!rows[a]?.[2] || !rows[b]?.[2]) continue;
        path.moveTo(rows[a][0], rows[a][1]);
        path.lineTo(rows[b][0], rows[b][1]);
      }
    });
    rows.forEach(([x, y, visible], k) => {
      if (!visible) return;
      context.fillStyle = JOINTS[k % JOINTS.length];
      context.beginPath();
      context.arc(x, y, (k === active ? 7 : 5) / scale, 0, 7);
      context.fill();
      this._stroked((path) => path.arc(x, y, (k === active ? 7 : 5) / scale, 0, 7));
      if (k !== active) return;
      context.font = `600 ${13 / scale}px system-ui, sans-serif`;
      context.lineWidth = 3 / scale;
      context.strokeStyle = "#000000";
      context.fillStyle = "#ffffff";
      context.strokeText(names[k], x + 10 / scale, y - 8 / scale);
      context.fillText(names[k], x + 10 / scale, y - 8 / scale);
    });
  }

  _paintCursor() {
    if (!this.cursor || this.readOnly) return;
    const { x, y } = this.cursor, r = Math.max(this.size / 2, 0.5);
    this._stroked((context) => {
      if (this.round) {
        context.moveTo(x + r, y);
        context.arc(x, y, r, 0, 7);
      }
      if (this.byKeys || !this.round) {
        const arm = 7 / this.scale;
        context.moveTo(x - arm, y);
        context.lineTo(x + arm, y);
        context.moveTo(x, y - arm);
        context.lineTo(x, y + arm);
      }
    });
  }

  _position(event, box = this.canvas.getBoundingClientRect()) {
    return { x: (event.clientX - box.left - this.x) / this.scale, y: (event.clientY - box.top - this.y) / this.scale };
  }

  _pointerdown(event) {
    this.canvas.focus({ preventScroll: true });
    this._endKeys();
    this._pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.canvas.setPointerCapture(event.pointerId);
    this._moveCursor(this._position(event));
    const moves = this.panning || event.button === 1 || event.button === 2 || this.readOnly;
    if (this._pointers.size === 2) {
      if (this._active) this._used?.cancel();
      this._active = false;
    } else if (!moves && this._pointers.size === 1) {
      const erases = event.pointerType === "pen" && (event.buttons & ERASER) !== 0;
      this._active = true;
      this._used = erases ? this.eraser : this.tool;
      this._used?.down(this.cursor, { shift: event.shiftKey });
    }
  }

  _pointermove(event) {
    const known = this._pointers.get(event.pointerId), box = this.canvas.getBoundingClientRect();
    this.byKeys = false;
    this._moveCursor(this._position(event, box));
    this.onhover?.(this.cursor);
    if (known && this._active) {
      for (const part of event.getCoalescedEvents?.() ?? []) this._used?.move(this._position(part, box));
      this._used?.move(this.cursor);
    } else if (known) {
      this._drag(event, known);
    }
    if (known) Object.assign(known, { x: event.clientX, y: event.clientY });
  }

  // One pointer moves the image, two also zoom it.
  _drag(event, known) {
    const others = [...this._pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    const share = 1 / this._pointers.size;
    this.x += (event.clientX - known.x) * share;
    this.y += (event.clientY - known.y) * share;
    this.draw();
    if (others.length !== 1) return;
    const box = this.canvas.getBoundingClientRect(), other = others[0];
    const before = Math.hypot(known.x - other.x, known.y - other.y);
    const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
    this.zoom(after / Math.max(1, before), (event.clientX + other.x) / 2 - box.left, (event.clientY + other.y) / 2 - box.top);
  }

  _pointerup(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    if (this._active) this._used?.up();
    this._active = false;
    if (event.pointerType === "touch") this._moveCursor(null);
  }

  _pointercancel(event) {
    this._pointers.delete(event.pointerId);
    if (this._active) this._used?.cancel();
    this._active = false;
  }

  _wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
  }

  _keydown(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrows[event.key]) {
      event.preventDefault();
      const far = event.shiftKey ? 8 : 1, [dx, dy] = arrows[event.key];
      const from = this.cursor ?? { x: this.width / 2, y: this.height / 2 };
      const inside = (value, most) => Math.min(most - 0.5, Math.max(0.5, Math.floor(value) + 0.5));
      this.byKeys = true;
      this._moveCursor({ x: inside(from.x + dx * far, this.width), y: inside(from.y + dy * far, this.height) });
      this.onhover?.(this.cursor);
      if (this._byKey) this._used?.move(this.cursor);
    } else if (event.key === " ") {
      event.preventDefault();
      if (this._byKey || this.readOnly || !this.cursor) return;
      this._byKey = true;
      this._used = this.tool;
      this._used?.down(this.cursor, { shift: event.shiftKey });
    }
  }

  _keyup(event) {
    if (event.key === " ") this._endKeys();
  }

  _endKeys() {
    if (this._byKey) this._used?.up();
    this._byKey = false;
  }
}
