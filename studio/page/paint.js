// Paint: one image, its classes and tools. Every stroke is a step of its history and is saved.

import { Refused, TAB, getBytes, image, isSample, loaded, picture, send } from "./api.js";
import { Board } from "./board.js";
import { classesPanel, defineClasses } from "./classes.js";
import { el, redraw, rgb } from "./dom.js";
import { forgetOldSteps, historyOf } from "./history.js";
import { imagePanel } from "./imagepanel.js";
import { keypointsPanel, PointTool } from "./keypoints.js";
import { depthPicture } from "./learn.js";
import { classesIn, classesOfNow, idOf, isGone, meanTheSame } from "./meaning.js";
import { allSaved, isWaiting, kept, save, saveAgain, setTag, undecided, waitingMask } from "./saver.js";
import { pressed } from "./shortcuts.js";
import { showPlace, stageOf } from "./stage.js";
import { Steps } from "./steps.js";
import { entryOf, heldElsewhere, of, reload, store, subscribe } from "./store.js";
import { Strip, neighbor, nextImage } from "./strip.js";
import { BrushTool, FillTool, PolygonTool, SmartTool } from "./tools.js";

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

class Session {
  constructor(view, entry) {
    Object.assign(this, { view, entry, stem: entry.stem });
    const { project } = store;
    this.sample = isSample(this.stem);
    this.title = this.sample ? `Sample ${Number(this.stem.split("-")[2]) + 1}` : `Image ${this.stem}`;
    this.width = project.width;
    this.height = project.height;
    this.ignoreId = project.ignore_id;
    this.classes = classesOfNow(); // that the ids of its mask are of
    this.history = historyOf(this.stem);
    settings.size ??= Math.max(2, Math.round(project.width / 16));
    this.settings = settings;
    this.proposed = false; // whether the mask shown is a proposal that nobody has accepted
    this.closed = false;
    Object.assign(this, stageOf(this));
    this.renewClasses();
    this.side = el("aside", { class: "side", "aria-label": "Classes and this image" });
    this.strip = new Strip(this.sample ? null : this.stem);
    this.view.replaceChildren(el("h1", { class: "unseen" }, `Paint ${this.title}`), this.strip.view, this.stage, this.side);
    this.strip.show();
    this.board = new Board(this.canvas, this.width, this.height, project.classes, this.ignoreId);
    this.board.looking = true; // until it is opened
    this.steps = new Steps(this.board, this.history);
    this.opened = false;
    this.board.onhover = (at) => showPlace(this, at);
    this.board.opacity = settings.opacity;
    this.tools = {
      brush: new BrushTool(this, false), eraser: new BrushTool(this, true), polygon: new PolygonTool(this),
      fill: new FillTool(this), smart: new SmartTool(this), points: new PointTool(this), pan: null,
    };
    this.board.eraser = this.tools.eraser;
    this.unsubscribe = subscribe((what, content) => this.told(what, content));
    this.keys = (event) => pressed(this, event);
    addEventListener("keydown", this.keys);
    const none = settings.tool === "points" && !project.keypoints.names.length;
    this.useTool(none || !this.has(settings.tool) ? "brush" : settings.tool);
    this.update();
  }

  // Samples of the review have no features at hand, and their keypoints are not reviewed.
  has(tool) {
    return !this.sample || !["smart", "points"].includes(tool);
  }

  // Whether it was taken out of the set.
  get gone() {
    return !this.sample && !entryOf(this.stem);
  }

  get mask() {
    return this.board.mask;
  }

  // What it shows; once more when the server is back, if it was away.
  async open() {
    this.again = this.opening;
    if (this.opening) return;
    this.opening = true;
    this.message.hidden = true; // of an attempt before
    try {
      this.board.picture = await createImageBitmap(await loaded(picture(this.entry))); // stays decoded
      this.board.draw();
      await this.hold(false);
      if (this.board.looking) await this.loadMask();
      this.opened = true;
      if (this.board.looking && !heldElsewhere(this.stem)) await this.hold(false); // free since
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
      this.board.looking = true;
      return this.update();
    }
    if (this.closed) return;
    if (this.board.looking) {
      await this.loadMask(true);
      this.board.looking = false;
      saveAgain(this.stem);
    }
    this.update();
  }

  async loadMask(holds = !this.board.looking) {
    if (isWaiting(this.stem)) {
      const waits = waitingMask(this.stem);
      if (waits) {
        this.steps.show(waits.pixels);
        this.classes = waits.classes;
      }
      return;
    }
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const found = await getBytes(`${image(this.stem)}/mask`);
    const classes = classesIn(found);
    if (!meanTheSame(classes)) await reload(); // another program has changed them, and nobody has told
    if (this.closed || turn !== this.turn || this.steps.busy || isWaiting(this.stem)) return;
    const tag = found.headers.get("etag").replaceAll('"', "");
    setTag(this.stem, tag);
    this.steps.show(found.bytes);
    this.classes = classes;
    this.proposed = false;
    const left = holds ? kept(this.stem, this.mask.length) : null;
    if (left) {
      this.steps.show(left.pixels);
      setTag(this.stem, left.tag); // if there is a newer mask, the person is asked
      this.classes = left.classes;
      save(this.stem, this.mask, this.classes);
      this.say("Strokes that were not saved when the tab was closed are back.");
    } else if (tag === "none") {
      await this.prefill();
    }
    this.update();
  }

  // Fills an image without a label with what the ensemble proposes.
  async prefill() {
    if (of(this.stem, store.project.learn.uncertainty) === undefined || this.refused) return;
    const found = await getBytes(`${image(this.stem)}/proposal`).catch(() => null);
    if (!found || this.closed || !this.takesProposal || found.bytes.length !== this.mask.length) return;
    this.steps.show(found.bytes);
    this.classes = classesIn(found);
    this.proposed = true;
    this.update();
  }

  // Whether nobody has painted here.
  get takesProposal() {
    return !entryOf(this.stem)?.labelled && !isWaiting(this.stem) && !this.steps.busy && (this.proposed || !this.edited);
  }

  close() {
    this.board.finish(); // a stroke that goes on is not lost
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

  // A tool begins, on a mask whose classes are those of now, unless something of it waits.
  begin() {
    if (!isWaiting(this.stem) && !this.proposed) this.classes = classesOfNow();
    this.steps.begin();
  }

  // The tool ends; it has changed nothing outside `area`. Returns whether it is a step to undo.
  end(area) {
    if (!this.steps.busy) return false;
    this.tools.smart.forget();
    const changed = this.steps.end(area);
    if (changed || this.proposed) this.keep();
    return changed !== null;
  }

  keep() {
    this.proposed = false;
    this.edited = true;
    save(this.stem, this.mask, this.classes); // which is told
  }

  put(index, value) {
    if (settings.protect && value !== this.ignoreId && this.steps.before[index] !== this.ignoreId) return;
    this.mask[index] = value;
  }

  get value() {
    return settings.class < 0 ? this.ignoreId : settings.class;
  }

  get color() {
    return settings.class < 0 ? [150, 150, 150] : rgb(store.project.classes[settings.class].color);
  }

  undo() {
    if (this.board.outline?.length) this.tools.polygon.undo();
    else if (!this.steps.busy && !this.board.readOnly) this.took(this.steps.undo());
  }

  redo() {
    if (!this.steps.busy && !this.board.readOnly) this.took(this.steps.redo());
  }

  // A step of the history, which has changed an area.
  took(area) {
    this.tools.smart.forget();
    if (area) this.keep();
  }

  useTool(name) {
    this.board.finish();
    this.tools[settings.tool]?.cancel();
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

  // After a change of classes: no step, and no class that is chosen, is of one that is gone.
  renewClasses() {
    const before = forgetOldSteps(), id = settings.class;
    if (!isGone(before, id)) return;
    settings.class = idOf(before, id) ?? 0;
    this.say(`${before[id].name} is no longer class ${id + 1}; ${store.project.classes[settings.class].name} is chosen now.`);
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
      this.steps.busy = false;
      this.steps.show(this.mask);
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
    location.hash = `#paint/${neighbor(this.stem, by)}`;
  }

  say(text, alarm = false) {
    this.message.textContent = text;
    this.message.className = alarm ? "message alarm" : "message";
    this.message.hidden = false;
    clearTimeout(this.timer);
    if (!alarm) this.timer = setTimeout(() => (this.message.hidden = true), 5000);
  }

  // What was read before is shown, and may be old, if it cannot be read again.
  async reread(work) {
    try {
      await work;
      if (this.unread) this.message.hidden = true;
      this.unread = false;
    } catch (error) {
      this.unread = true;
      this.say(error.message, true);
    }
  }

  told(what, content) {
    const work = undecided(this.stem);
    this.board.locked = work !== undefined && work.problem.status !== 412;
    if (what === "saved" && content.stem === this.stem && content.tab !== TAB && content.tag !== null) {
      if (!isWaiting(this.stem)) this.reread(this.loadMask());
    }
    if (what === "saved" && content.stem === this.stem && content.tag === null) this.tools.points.reset();
    if (what === "refused" && content.stem === this.stem) this.say(content.message, true);
    if (what === "again" && !this.opened) this.open();
    else if (what === "again") {
      if (!this.board.looking) this.reread(this.hold(false)); // it was free meanwhile
      else if (!isWaiting(this.stem)) this.reread(this.loadMask());
    }
    if (what === "holds" && this.opened) {
      const held = heldElsewhere(this.stem);
      if (held !== this.board.looking && !this.gone) {
        if (held) this.board.looking = true;
        else this.reread(this.hold(false));
      }
    }
    if (what === "learn" && store.project.learn.phase === "idle" && this.opened) {
      if (this.takesProposal && entryOf(this.stem)?.points === null) this.prefill();
      this.tools.points.propose();
    }
    if (what === "project") {
      this.entry = entryOf(this.stem) ?? this.entry;
      if (this.gone) this.board.looking = true;
      this.renewClasses();
      if (meanTheSame(this.classes)) this.classes = classesOfNow();
      else if (this.opened && !this.gone && !this.steps.busy && !isWaiting(this.stem)) this.reread(this.loadMask());
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
      redraw(this.side, ...(points ? keypointsPanel(this, this.tools.points) : classesPanel(this)), imagePanel(this));
    }
    this.strip.show();
  }

  toggleGaps() {
    this.board.showGaps = !this.board.showGaps;
    this.update();
  }

  // Depth in the image's place, under the mask.
  async toggleDepth() {
    if (!this.entry.depth) return;
    try {
      this.board.picture = await loaded(this.deep ? picture(this.entry) : depthPicture(this.entry));
    } catch (error) {
      return this.say(error.message, true);
    }
    this.deep = !this.deep;
    this.update();
    this.board.draw();
  }
}
