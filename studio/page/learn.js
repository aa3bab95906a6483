// Learn: what the training does, and what it proposes for every image.

import { SIDE, getBytes, image, isSample, send, thumbnail } from "./api.js";
import { el, plural, redraw, seconds } from "./dom.js";
import { colorsOf, paintHeat, paintMask } from "./overlay.js";
import { Near } from "./near.js";
import { progressView } from "./progress.js";
import { isLabelled, of, store, subscribe } from "./store.js";

const turns = new WeakMap(); // canvas -> number of what was last to be drawn

export function learningText(learn) {
  switch (learn.phase) {
    case "starting": return "Learning: starting";
    case "training": return `Learning: ${Math.round((100 * learn.step) / learn.steps)}%`;
    case "proposing": return "Learning: proposing";
    default: return learn.message ? `Learning: ${learn.message === "stopped" ? "stopped" : "failed"}` : learn.rounds ? `Learned, round ${learn.rounds}` : "Nothing learned yet";
  }
}

export function learnView(view) {
  const status = el("div", { class: "learning" }), wall = el("ul", { class: "grid wall" });
  const problem = el("p", { class: "alarm", role: "alert" }), progress = el("section", { "aria-label": "Estimate" });
  const act = (action) => send("POST", "/api/learn", { action }).then(() => (problem.textContent = "")).catch((error) => (problem.textContent = error.message));
  let shown = null;
  // The set's depth, to look at; sets without depth lack the choice.
  const kinds = el("select", { id: "kind", onchange: () => showWall() }, el("option", { value: "labels" }, "labels"), el("option", { value: "depth" }, "depth"));
  const choice = el("div", { class: "controls", hidden: true }, el("label", { class: "slider", for: "kind" }, "Show"), kinds);
  const show = () => {
    const { learn, images } = store.project;
    const busy = learn.phase !== "idle";
    const labelled = images.filter(isLabelled).length;
    const text = {
      starting: "Loading the generator",
      training: `Step ${learn.step} of ${learn.steps} on ${plural(labelled, "image")}, loss ${learn.loss?.toFixed(3) ?? ""}; ${seconds(learn.seconds_left) || "some time"} left`,
      proposing: "Labeling every other image",
      idle: learn.message && learn.message !== "stopped" ? `Failed: ${learn.message}` : learn.rounds
        ? `Round ${learn.rounds} ${learn.seconds ? `took ${seconds(learn.seconds)}` : "was in an earlier session"}.${learn.changed ? " Labels have changed since; the next round starts when you go to the next image, or here." : ""}`
        : labelled ? "Ready when you are." : "Paint an image first; parts are enough.",
    }[learn.phase];
    const bar = el("progress", { max: 1, "aria-label": "Training" });
    if (learn.phase === "training") bar.value = learn.step / learn.steps;
    if (!busy) bar.value = learn.rounds ? 1 : 0;
    redraw(status, el("p", { role: "status" }, text), bar,
      el("div", { class: "pair inline" },
        busy ? el("button", { type: "button", onclick: () => act("stop") }, "Stop")
          : el("button", { type: "button", class: "main", disabled: !labelled, onclick: () => act("start") }, learn.rounds ? "Learn again" : "Start learning"),
        learn.estimating && !busy ? el("button", { type: "button", onclick: () => act("stop") }, "Stop estimating") : null));
    const figures = JSON.stringify([learn.estimates, learn.estimating, Math.round(learn.work_s / 6)]);
    if (figures !== progress.dataset.shown) {
      progress.dataset.shown = figures;
      progress.replaceChildren(...progressView(learn));
    }
    if (learn.missing.length) status.append(el("p", { class: "note faint" }, `No image has a pixel of ${learn.missing.join(", ")} yet.`));
    const now = `${learn.rounds} ${learn.phase} ${Object.keys(learn.uncertainty).length} ${labelled}`;
    if (now !== shown) {
      shown = now;
      showWall();
    }
  };
  const tiles = new Map();
  const showWall = () => {
    const { learn, images } = store.project;
    const place = new Map(learn.next.map((stem, at) => [stem, at]));
    choice.hidden = !images.some((entry) => entry.depth);
    const most = Math.max(1e-6, ...Object.values(learn.uncertainty));
    const rank = (entry) => place.get(entry.stem) ?? (isLabelled(entry) ? 1e6 : 1e5);
    redraw(wall, ...[...images].sort((a, b) => rank(a) - rank(b)).map((entry) => {
      if (!tiles.has(entry.stem)) tiles.set(entry.stem, new Tile(entry.stem, near));
      const unsure = of(entry.stem, learn.uncertainty), first = place.get(entry.stem) === 0;
      tiles.get(entry.stem).show(entry, unsure, unsure / most, first, kinds.value === "depth" && entry.depth);
      return tiles.get(entry.stem).item;
    }));
  };
  const page = el("div", { class: "page" }), near = new Near(page);
  page.append(
    el("h1", {}, "What it has learned"), status, problem, progress,
    el("h2", {}, "What to label next"),
    el("p", { class: "lead" }, "The image that teaches most comes first: the ensemble is unsure of it, and it is unlike those that are labeled. Rest on an image to see where the ensemble is unsure."),
    choice, wall);
  view.replaceChildren(page);
  show();
  const unsubscribe = subscribe((what, content) => {
    if (what === "saved") tiles.get(content.stem)?.changed();
    if (["learn", "project", "saved"].includes(what)) show();
  });
  return () => {
    unsubscribe();
    near.close();
  };
}

// An image with its label or proposal, which is drawn while the tile is near the window.
class Tile {
  constructor(stem, near) {
    this.canvas = el("canvas", { width: 0, height: 0, "aria-hidden": "true" });
    this.picture = el("img", { loading: "lazy" });
    this.words = el("small", {});
    this.bar = el("i", {});
    this.meter = el("i", { class: "meter" }, this.bar);
    const link = el("a", { href: `#paint/${stem}`, class: "tile" },
      el("span", { class: "stack" }, this.picture, this.canvas),
      el("span", { class: "under" }, el("b", {}, stem), this.words), this.meter);
    for (const [kind, rests] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
      link.addEventListener(kind, () => {
        this.rests = rests;
        this.draw();
      });
    }
    this.item = el("li", {}, link);
    near.watch(this.item, (isNear) => {
      this.near = isNear;
      this.draw();
    });
  }

  // `share`: its uncertainty over the largest; `deep`: whether depth is shown.
  show(entry, unsure, share, first, deep) {
    const done = isLabelled(entry), proposed = unsure !== undefined && !done;
    this.entry = entry;
    this.kind = deep ? null : done ? "mask" : proposed ? "proposal" : null;
    const source = deep ? depthPicture(entry) : thumbnail(entry);
    if (this.picture.getAttribute("src") !== source) this.picture.setAttribute("src", source);
    this.picture.alt = `${deep ? "Depth of image" : "Image"} ${entry.stem}`;
    this.words.textContent = done ? "your label" : !proposed ? "no proposal" : first ? "teaches most" : `unsure ${unsure.toFixed(3)}`;
    this.meter.hidden = !proposed;
    if (proposed) this.bar.style.width = `${Math.round(100 * share)}%`;
    this.version = `${unsure} ${store.project.learn.rounds}`;
    this.draw();
  }

  // Its label is another one.
  changed() {
    this.drawn = null;
    this.draw();
  }

  draw() {
    const kind = !this.near ? null : this.rests && this.kind === "proposal" ? "uncertainty" : this.kind;
    const now = `${kind} ${kind && this.version}`;
    if (this.drawn === now) return;
    this.drawn = now;
    drawOverlay(this.canvas, this.entry, kind);
  }
}

// Depth of an image or sample as a picture of its own.
export const depthPicture = (entry) => (isSample(entry.stem)
  ? `/review/${entry.stem}/depth?v=${entry.tag}` : `/images/${encodeURIComponent(entry.stem)}/depth`);

// Draws a mask, a proposal or an uncertainty map over the small picture of an image or sample; null
// gives the canvas's memory back.
export async function drawOverlay(canvas, entry, kind) {
  const turn = (turns.get(canvas) ?? 0) + 1;
  turns.set(canvas, turn);
  if (!kind) return Object.assign(canvas, { width: 0, height: 0 });
  const found = await getBytes(`${image(entry.stem)}/${kind}?side=${SIDE}`).catch(() => null);
  if (!found || turns.get(canvas) !== turn) return;
  const { classes, ignore_id } = store.project;
  const [width, height] = found.headers.get("x-studio-size").split(" ").map(Number);
  Object.assign(canvas, { width, height }); // which also clears it
  const context = canvas.getContext("2d");
  if (kind === "uncertainty") paintHeat(context, found.bytes, width);
  else paintMask(context, found.bytes, width, colorsOf(classes, ignore_id));
}
