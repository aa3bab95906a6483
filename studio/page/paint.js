// Paint: one image, its classes and tools. Every stroke is a step of its history and is saved.

import { Refused, TAB, getBytes, image, isSample, picture, request, send } from "./api.js";
import { Board } from "./board.js";
import { classesPanel, defineClasses } from "./classes.js";
import { el, icon, plural, redraw, rgb } from "./dom.js";
import { History, copyArea } from "./history.js";
import { keypointsPanel, PointTool } from "./keypoints.js";
import { depthPicture } from "./learn.js";
import { united } from "./overlay.js";
import { allSaved, drop, isWaiting, kept, save, saveAgain, saveOver, setTag, waiting } from "./saver.js";
import { entryOf, heldElsewhere, isLabelled, store, subscribe } from "./store.js";
import { Strip } from "./strip.js";
import { BrushTool, FillTool, PolygonTool, SmartTool } from "./tools.js";

const TOOLS = [
  ["brush", "Brush", "b"], ["eraser", "Eraser", "e"], ["polygon", "Polygon", "p"], ["fill", "Fill", "f"],
  ["smart", "Smart", "s"], ["points", "Points", "k"], ["pan", "Move", "h"],
];
const histories = new Map();
const settings = { tool: "smart", class: 0, size: null, opacity: 0.55, protect: false };

export function paintView(view, stem) {
  const { project } = store;
  const known = project.images.find((entry) => entry.stem === stem);
  if (!known) {
    const first = project.learn.next[0] ?? project.images[0].stem;
    history.replaceState(null, "", `#paint/${first}`);
    return paintView(view, first);
  }
  if (!project.classes.length) return defineClasses(view);
  const session = new Session(view, known);
  session.open();
  return () => session.close();
}

// A sample of the review, whose mask is corrected with the same tools. It is no label to train on.
export function paintSample(view, stem) {
  if (!isSample(stem) || !store.project.classes.length) {
    location.replace("#review");
    return () => {};
  }
  view.className = "paint";
  const session = new Session(view, { stem, tag: "", labelled: true, points: null });
  session.open();
  return () => session.close();
}

export function nextImage(after) {
  const { learn, images } = store.project;
  const rest = learn.next.filter((stem) => stem !== after && !heldElsewhere(stem));
  if (rest.length) return rest[0];
  const at = images.findIndex((entry) => entry.stem === after);
  return images[(at + 1) % images.length].stem;
}

class Session {
  constructor(view, entry) {
    Object.assign(this, { view, entry, stem: entry.stem });
    const { project } = store;
    this.sample = isSample(this.stem);
    this.title = this.sample ? `Sample ${Number(this.stem.split("-")[2]) + 1}` : `Image ${this.stem}`;
    this.width = project.width;
    this.height = project.height;
    this.ignoreId = project.ignore_id;
    this.history = histories.get(this.stem) ?? new History();
    histories.set(this.stem, this.history);
    settings.size ??= Math.max(2, Math.round(project.width / 16));
    settings.class = Math.min(settings.class, project.classes.length - 1);
    this.settings = settings;
    this.proposed = false; // whether the mask shown is a proposal that nobody has accepted
    this.closed = false;
    this.before = new Uint8Array(this.width * this.height).fill(this.ignoreId); // without what a tool does now
    this.unlabeled = this.before.length; // pixels of it
    this.busy = false; // whether a tool has begun
    this.touched = null; // area that it may have changed so far
    this.build();
    this.board = new Board(this.canvas, this.width, this.height, project.classes, this.ignoreId);
    this.board.readOnly = true; // until it is opened
    this.opened = false;
    this.board.onhover = (at) => this.hovered(at);
    this.board.opacity = settings.opacity;
    this.tools = {
      brush: new BrushTool(this, false), eraser: new BrushTool(this, true), polygon: new PolygonTool(this),
      fill: new FillTool(this), smart: new SmartTool(this), points: new PointTool(this), pan: null,
    };
    this.unsubscribe = subscribe((what, content) => this.told(what, content));
    this.keys = (event) => this.key(event);
    addEventListener("keydown", this.keys);
    const none = settings.tool === "points" && !project.keypoints.names.length;
    this.useTool(none || !this.has(settings.tool) ? "brush" : settings.tool);
    this.update();
  }

  // Samples of the review have no features at hand, and their keypoints are not reviewed.
  has(tool) {
    return !this.sample || !["smart", "points"].includes(tool);
  }

  get mask() {
    return this.board.mask;
  }

  build() {
    const button = ([name, title, key]) =>
      el("button", { type: "button", "data-tool": name, title: `${title} (${key.toUpperCase()})`, "aria-pressed": "false", onclick: () => this.useTool(name) },
        icon(name), el("span", {}, title), el("kbd", { "aria-hidden": "true" }, key.toUpperCase()));
    this.toolbar = el("div", { class: "tools", role: "toolbar", "aria-label": "Tools" }, ...TOOLS.filter(([name]) => this.has(name)).map(button));
    this.sizeInput = el("input", { type: "range", min: "1", max: String(Math.max(16, Math.round(this.width / 4))), "aria-label": "Brush size in pixels",
      oninput: () => this.setSize(Number(this.sizeInput.value)) });
    this.sizeText = el("output", {});
    this.opacityInput = el("input", { type: "range", min: "0", max: "100", value: String(settings.opacity * 100), "aria-label": "Opacity of the mask",
      oninput: () => this.setOpacity(Number(this.opacityInput.value) / 100) });
    const small = (name, title, act) => el("button", { type: "button", class: "small", title, "aria-label": title, onclick: act }, icon(name));
    this.undoButton = small("undo", "Undo (Ctrl Z)", () => this.undo());
    this.redoButton = small("redo", "Redo (Ctrl Y)", () => this.redo());
    this.canvas = el("canvas", { tabindex: "0", class: "board", role: "application",
      "aria-label": `${this.title}. Arrows move the cursor, space draws, number keys choose a class.` });
    this.hover = el("div", { class: "hover" });
    this.message = el("div", { class: "message", role: "status", hidden: true });
    this.smartBar = el("div", { class: "smartbar", hidden: true },
      small("minus", "Smaller selection (,)", () => this.tools.smart.adjust(-1)),
      small("plus", "Larger selection (.)", () => this.tools.smart.adjust(1)),
      el("span", {}, "Adjust the last selection"));
    this.side = el("aside", { class: "side", "aria-label": "Classes and this image" });
    this.strip = new Strip(this.sample ? null : this.stem);
    this.view.replaceChildren(
      el("h1", { class: "unseen" }, `Paint ${this.title}`), this.strip.view,
      el("section", { class: "stage", "aria-label": "Canvas" },
        el("div", { class: "above" }, this.toolbar,
          el("label", { class: "slider" }, "Size", this.sizeInput, this.sizeText),
          el("label", { class: "slider" }, "Mask", this.opacityInput),
          el("div", { class: "group" }, this.undoButton, this.redoButton)),
        el("div", { class: "holder" }, this.canvas, this.hover, this.smartBar, this.message,
          el("div", { class: "zoom" }, small("plus", "Zoom in (+)", () => this.board.zoom(1.25)),
            small("fit", "Fit (R)", () => this.board.fit()), small("minus", "Zoom out (−)", () => this.board.zoom(0.8))))),
      this.side);
    this.strip.show();
  }

  // What it shows; once more when the server is back, if it was away.
  async open() {
    this.again = this.opening;
    if (this.opening) return;
    this.opening = true;
    this.message.hidden = true; // of an attempt before
    const load = new Image();
    load.src = picture(this.entry);
    try {
      await load.decode();
      this.board.picture = await createImageBitmap(load); // stays decoded
      this.board.draw();
      await this.hold(false);
      if (this.board.readOnly) await this.loadMask();
      this.opened = true;
      if (this.board.readOnly && !heldElsewhere(this.stem)) await this.hold(false); // free since
      this.update();
    } catch (error) {
      this.say(error.message, true);
    }
    this.opening = false;
    if (this.again && !this.opened && !this.closed) return this.open();
    this.canvas.focus({ preventScroll: true });
  }

  async hold(take) {
    try {
      if (!this.sample) await send("POST", `${image(this.stem)}/hold`, { tab: TAB, take });
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 409) throw error;
      this.board.readOnly = true;
      return this.update();
    }
    if (this.closed) return;
    if (this.board.readOnly) {
      await this.loadMask(true);
      this.board.readOnly = false;
      saveAgain(this.stem);
    }
    this.update();
  }

  async loadMask(holds = !this.board.readOnly) {
    if (isWaiting(this.stem)) {
      this.show(waiting().find((work) => work.stem === this.stem).pixels ?? this.mask);
      return;
    }
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const found = await getBytes(`${image(this.stem)}/mask`);
    if (this.closed || turn !== this.turn || this.busy || isWaiting(this.stem)) return;
    const tag = found.headers.get("etag").replaceAll('"', "");
    setTag(this.stem, tag);
    this.show(found.bytes);
    this.proposed = false;
    const left = holds ? kept(this.stem, this.mask.length) : null;
    if (left) {
      this.show(left.pixels);
      setTag(this.stem, left.tag); // if there is a newer mask, the person is asked
      save(this.stem, this.mask);
      this.say("Strokes that were not saved when the tab was closed are back.");
    } else if (tag === "none") {
      await this.prefill();
    }
    this.update();
  }

  // Another mask than that which the tools have made.
  show(mask) {
    this.mask.set(mask);
    this.settle({ left: 0, top: 0, right: this.width, bottom: this.height });
  }

  // What the mask has in an area is from now on what the next tool begins with.
  settle(area) {
    this.unlabeled += this.countUnlabeled(this.mask, area) - this.countUnlabeled(this.before, area);
    copyArea(this.mask, this.before, this.width, area);
    this.board.refresh(area);
  }

  countUnlabeled(mask, { left, top, right, bottom }) {
    let count = 0;
    for (let row = top; row < bottom; row++) {
      for (let i = row * this.width + left; i < row * this.width + right; i++) if (mask[i] === this.ignoreId) count++;
    }
    return count;
  }

  // Fills an image without a label with what the ensemble proposes.
  async prefill() {
    if (store.project.learn.uncertainty[this.stem] === undefined || this.refused) return;
    const found = await getBytes(`${image(this.stem)}/proposal`).catch(() => null);
    if (!found || this.closed || !this.takesProposal || found.bytes.length !== this.mask.length) return;
    this.show(found.bytes);
    this.proposed = true;
    this.update();
  }

  // Whether nobody has painted here.
  get takesProposal() {
    return !entryOf(this.stem)?.labelled && !isWaiting(this.stem) && !this.busy && (this.proposed || !this.edited);
  }

  close() {
    this.closed = true;
    for (const tool of Object.values(this.tools)) tool?.cancel();
    this.unsubscribe();
    removeEventListener("keydown", this.keys);
    this.board.close();
    this.teach();
  }

  // What was painted here is learned from, once it is saved.
  teach() {
    if (!this.edited || this.sample) return;
    this.edited = false;
    allSaved(this.stem).then(() => send("POST", "/api/learn", { action: "auto" })).catch(() => {});
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

  // The tool ends; without `area` it may have changed all. Returns whether it is a step to undo.
  end(area = { left: 0, top: 0, right: this.width, bottom: this.height }) {
    if (!this.busy) return false;
    this.busy = false;
    this.tools.smart.forget();
    const changed = this.history.note(this.before, this.mask, this.width, area);
    if (changed) this.settle(changed);
    if (changed || this.proposed) this.keep();
    return changed !== null;
  }

  revert() {
    if (!this.busy) return;
    this.busy = false;
    copyArea(this.before, this.mask, this.width, this.touched);
    this.board.refresh(this.touched);
  }

  keep() {
    this.proposed = false;
    this.edited = true;
    save(this.stem, this.mask); // which is told
  }

  put(index, value) {
    if (settings.protect && value !== this.ignoreId && this.before[index] !== this.ignoreId) return;
    this.mask[index] = value;
  }

  get value() {
    return settings.class < 0 ? this.ignoreId : settings.class;
  }

  get color() {
    return settings.class < 0 ? [150, 150, 150] : rgb(store.project.classes[settings.class].color);
  }

  undo() {
    if (!this.busy && !this.board.readOnly) this.took(this.history.undo(this.mask, this.width));
  }

  redo() {
    if (!this.busy && !this.board.readOnly) this.took(this.history.redo(this.mask, this.width));
  }

  // A step of the history, which has changed an area.
  took(area) {
    this.tools.smart.forget();
    if (!area) return;
    this.settle(area);
    this.keep();
  }

  useTool(name) {
    this.tools[settings.tool]?.cancel?.();
    settings.tool = name;
    this.board.tool = this.tools[name];
    this.board.panning = name === "pan";
    this.board.round = name === "brush" || name === "eraser";
    this.canvas.classList.toggle("pan", name === "pan");
    for (const button of this.toolbar.children) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
    this.setSize(settings.size);
    this.update();
  }

  useClass(id) {
    settings.class = id;
    if (settings.tool === "eraser" || settings.tool === "pan" || settings.tool === "points") this.useTool("brush");
    this.update();
  }

  setSize(size) {
    settings.size = Math.min(Number(this.sizeInput.max), Math.max(1, size));
    this.board.size = settings.size;
    this.sizeInput.value = settings.size;
    this.sizeText.textContent = `${settings.size} px`;
    this.board.draw();
  }

  setOpacity(opacity) {
    settings.opacity = opacity;
    this.board.opacity = opacity;
    this.board.draw();
  }

  clear() {
    this.begin();
    this.mask.fill(this.ignoreId);
    this.refused = true;
    const proposed = this.proposed;
    this.proposed = false;
    if (proposed) {
      this.busy = false;
      this.show(this.mask);
      this.update();
    } else {
      this.end();
    }
  }

  accept() {
    if (!this.proposed || this.board.readOnly) return;
    this.keep();
    this.say("Accepted as it is.");
  }

  next() {
    if (this.sample) return (location.hash = "#review");
    this.accept();
    this.teach();
    location.hash = `#paint/${nextImage(this.stem)}`;
  }

  step(by) {
    if (this.sample) return;
    const { images } = store.project;
    const at = images.findIndex((entry) => entry.stem === this.stem);
    location.hash = `#paint/${images[(at + by + images.length) % images.length].stem}`;
  }

  hovered({ x, y }) {
    const column = Math.floor(x), row = Math.floor(y);
    const inside = column >= 0 && row >= 0 && column < this.width && row < this.height;
    const id = inside ? this.mask[row * this.width + column] : -1;
    const name = id === this.ignoreId ? "unlabeled" : store.project.classes[id]?.name;
    const text = inside ? `${name} · ${column}, ${row}` : "";
    if (this.hover.textContent !== text) this.hover.textContent = text;
  }

  say(text, alarm = false) {
    this.message.textContent = text;
    this.message.className = alarm ? "message alarm" : "message";
    this.message.hidden = false;
    clearTimeout(this.timer);
    if (!alarm) this.timer = setTimeout(() => (this.message.hidden = true), 5000);
  }

  told(what, content) {
    if (what === "saved" && content.stem === this.stem && content.tab !== TAB && content.tag !== null) {
      if (!isWaiting(this.stem)) this.loadMask().catch(() => {});
    }
    if (what === "saved" && content.stem === this.stem && content.tag === null) this.tools.points.reset();
    if (what === "refused" && content.stem === this.stem) this.say(`Keypoints are not saved: ${content.message}`, true);
    if (what === "again" && !this.opened) this.open();
    else if (what === "again") {
      if (!this.board.readOnly) this.hold(false).catch(() => {}); // it was free meanwhile
      else if (!isWaiting(this.stem)) this.loadMask().catch(() => {});
    }
    if (what === "holds" && this.opened) {
      const held = heldElsewhere(this.stem);
      if (held !== this.board.readOnly) {
        if (held) this.board.readOnly = true;
        else this.hold(false).catch(() => {});
      }
    }
    if (what === "learn" && store.project.learn.phase === "idle" && this.opened) {
      if (this.takesProposal && entryOf(this.stem)?.points === null) this.prefill();
      this.tools.points.propose();
    }
    if (what === "project") {
      this.entry = store.project.images.find((entry) => entry.stem === this.stem) ?? this.entry;
      this.board.setColors(store.project.classes);
      this.tools.points.reset();
    }
    if (["holds", "saved", "saving", "project", "learn"].includes(what)) this.updateSoon();
  }

  // Once for all that is told before the next frame.
  updateSoon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.update();
    });
  }

  // Everything beside the canvas.
  update() {
    if (!this.tools || this.closed) return;
    this.undoButton.disabled = !this.history.done.length;
    this.redoButton.disabled = !this.history.undone.length;
    this.smartBar.hidden = settings.tool !== "smart" || !this.tools.smart.last;
    const points = settings.tool === "points", former = this.board.points;
    this.board.points = points || this.tools.points.any ? this.tools.points.shown() : null;
    if (former || this.board.points) this.board.draw();
    if (!this.side.querySelector("input:focus, textarea:focus")) {
      redraw(this.side, ...(points ? keypointsPanel(this, this.tools.points) : classesPanel(this)), this.imagePanel());
    }
    this.strip.show();
  }

  imagePanel() {
    const work = waiting().find((one) => one.stem === this.stem && one.problem);
    const gaps = this.gaps();
    const parts = [el("h2", {}, this.title)];
    if (!this.opened) return el("section", { class: "panel" }, ...parts, el("p", { class: "note" }, "It is being read."));
    if (this.board.readOnly) {
      parts.push(el("p", { class: "note warn" }, icon("lock"), "Another tab holds this image; here you can only look."),
        el("button", { type: "button", class: "wide", onclick: () => this.hold(true).catch((error) => this.say(error.message, true)) }, "Take it over"));
    } else if (work?.problem.status === 412) {
      parts.push(el("p", { class: "note warn" }, "The mask has changed on disk since this tab read it."),
        el("button", { type: "button", class: "wide", onclick: () => { drop(this.stem); this.loadMask(); } }, "Load what is on disk"),
        el("button", { type: "button", class: "wide", onclick: () => saveOver(this.stem) }, "Save mine over it"));
    } else if (work) {
      parts.push(el("p", { class: "note warn" }, `Not saved: ${work.problem.message}`));
    } else if (this.sample) {
      parts.push(el("p", { class: "note" }, "Correct what the ensemble has wrong. The pixels that you change count as its errors, and so do ignored ones. This teaches nothing."),
        el("button", { type: "button", class: "main wide", "data-focus": "next", onclick: () => this.next() }, "Done, back to Review ", el("kbd", {}, "N")));
    } else if (this.proposed) {
      parts.push(el("p", { class: "note" }, "Filled with the ensemble's proposal. Correct what is wrong, or accept it as it is."),
        el("div", { class: "pair accept" },
          el("button", { type: "button", class: "main", "data-focus": "accept", onclick: () => this.next() }, "Accept ", el("kbd", {}, "N")),
          el("button", { type: "button", onclick: () => this.clear() }, "Start empty")));
    }
    if (this.entry.depth) parts.push(el("button", { type: "button", class: "wide", "data-focus": "depth", "aria-pressed": String(Boolean(this.deep)), onclick: () => this.toggleDepth() }, "Look at depth ", el("kbd", {}, "D")));
    if (this.sample) return el("section", { class: "panel" }, ...parts);
    if (!this.proposed && !this.board.readOnly) {
      const share = gaps < 0.0005 && gaps > 0 ? "under 0.1" : gaps < 0.1 ? (100 * gaps).toFixed(1) : Math.floor(100 * gaps);
      parts.push(el("p", { class: "note" }, gaps === 0 ? "Every pixel is labeled." : gaps === 1
        ? "Nothing is labeled yet. A click with the smart tool paints a whole region; parts are enough to learn from."
        : `${share}% unlabeled. Training skips those pixels, so parts are enough.`),
        el("button", { type: "button", class: "main wide", "data-focus": "next", onclick: () => this.next() }, "Done, next image ", el("kbd", {}, "N")),
        el("div", { class: "pair" },
          el("button", { type: "button", "aria-pressed": String(this.board.showGaps), onclick: () => this.toggleGaps() }, "Show gaps ", el("kbd", {}, "G")),
          el("button", { type: "button", disabled: gaps === 1, onclick: () => this.clear() }, "Clear")));
    }
    const { learn } = store.project;
    if (learn.missing.length && !learn.rounds) {
      parts.push(el("p", { class: "note faint" }, `Learning starts when every class has a pixel somewhere. Missing: ${learn.missing.join(", ")}.`));
    } else if (learn.rounds) {
      parts.push(el("p", { class: "note faint" }, `${plural(Object.keys(learn.uncertainty).length, "image")} proposed in round ${learn.rounds}.`));
    }
    return el("section", { class: "panel" }, ...parts);
  }

  // The share of pixels without a label.
  gaps() {
    return this.unlabeled / this.mask.length;
  }

  toggleGaps() {
    this.board.showGaps = !this.board.showGaps;
    this.update();
  }

  // Depth in the image's place, under the mask.
  async toggleDepth() {
    if (!this.entry.depth) return;
    const load = new Image();
    load.src = this.deep ? picture(this.entry) : depthPicture(this.entry);
    try {
      await load.decode();
    } catch (error) {
      return this.say(error.message, true);
    }
    this.deep = !this.deep;
    this.board.picture = load;
    this.update();
    this.board.draw();
  }

  key(event) {
    if (event.target.closest("input:not([type=range]), textarea, dialog")) return;
    const letter = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (letter === "z" && !event.shiftKey) this.undo();
      else if (letter === "y" || letter === "z") this.redo();
      else return;
      event.preventDefault();
      return;
    }
    if (event.altKey) return;
    const tool = TOOLS.find(([, , key]) => key === letter);
    const acts = {
      "[": () => this.setSize(settings.size - Math.max(1, Math.round(settings.size / 8))),
      "]": () => this.setSize(settings.size + Math.max(1, Math.round(settings.size / 8))),
      ",": () => this.tools.smart.adjust(-1), ".": () => this.tools.smart.adjust(1),
      "+": () => this.board.zoom(1.25), "=": () => this.board.zoom(1.25), "-": () => this.board.zoom(0.8), r: () => this.board.fit(),
      g: () => this.toggleGaps(), d: () => this.toggleDepth(), n: () => this.next(),
      o: () => { this.board.showMask = !this.board.showMask; this.board.draw(); },
      l: () => { settings.protect = !settings.protect; this.update(); },
      pageup: () => this.step(-1), pagedown: () => this.step(1),
      escape: () => this.board.tool?.cancel?.(),
    };
    if (letter === "enter" && !event.target.closest("button, a")) {
      if (this.board.outline?.length) this.tools.polygon.finish();
      else this.accept();
    } else if (/^[0-9]$/.test(letter) && settings.tool !== "points") {
      const id = Number(letter) - 1;
      if (id < store.project.classes.length) this.useClass(id);
    } else if (tool && this.has(tool[0])) this.useTool(tool[0]);
    else if (acts[letter]) acts[letter]();
    else return;
    event.preventDefault();
  }
}
