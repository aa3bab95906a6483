// Learn: what the training does, and what it proposes for every image.

import { getBytes, image, isSample, picture, send } from "./api.js";
import { el, plural, seconds } from "./dom.js";
import { colorsOf, paintHeat, paintMask } from "./overlay.js";
import { progressView } from "./progress.js";
import { isLabelled, store, subscribe } from "./store.js";

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
    status.replaceChildren(el("p", { role: "status" }, text), bar,
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
  const showWall = () => {
    const { learn, images, width, height } = store.project;
    const place = new Map(learn.next.map((stem, at) => [stem, at]));
    choice.hidden = !images.some((entry) => entry.depth);
    const most = Math.max(1e-6, ...Object.values(learn.uncertainty));
    const rank = (entry) => place.get(entry.stem) ?? (isLabelled(entry) ? 1e6 : 1e5);
    wall.replaceChildren(...[...images].sort((a, b) => rank(a) - rank(b)).map((entry) => {
      const unsure = learn.uncertainty[entry.stem], done = isLabelled(entry);
      const canvas = el("canvas", { width, height, "aria-hidden": "true" });
      const meter = el("i", { class: "meter" }, el("i", {}));
      if (unsure !== undefined && !done) meter.firstChild.style.width = `${Math.round((100 * unsure) / most)}%`;
      const deep = kinds.value === "depth" && entry.depth;
      const first = place.get(entry.stem) === 0 && unsure !== undefined;
      const tile = el("a", { href: `#paint/${entry.stem}`, class: "tile" },
        el("span", { class: "stack" }, el("img", { src: deep ? depthPicture(entry) : picture(entry), alt: `${deep ? "Depth of image" : "Image"} ${entry.stem}` }), deep ? null : canvas),
        el("span", { class: "under" }, el("b", {}, entry.stem),
          el("small", {}, done ? "your label" : unsure === undefined ? "no proposal" : first ? "teaches most" : `unsure ${unsure.toFixed(3)}`)),
        done || unsure === undefined ? null : meter);
      if (!deep) drawOverlay(canvas, entry, done ? "mask" : unsure === undefined ? null : "proposal");
      if (!deep && !done && unsure !== undefined) {
        tile.addEventListener("pointerenter", () => drawOverlay(canvas, entry, "uncertainty"));
        tile.addEventListener("pointerleave", () => drawOverlay(canvas, entry, "proposal"));
      }
      return el("li", {}, tile);
    }));
  };
  view.replaceChildren(el("div", { class: "page" },
    el("h1", {}, "What it has learned"), status, problem, progress,
    el("h2", {}, "What to label next"),
    el("p", { class: "lead" }, "The image that teaches most comes first: the ensemble is unsure of it, and it is unlike those that are labeled. Rest on an image to see where the ensemble is unsure."),
    choice, wall));
  show();
  return subscribe((what) => ["learn", "project", "saved"].includes(what) && show());
}

// Depth of an image or sample as a picture of its own.
export const depthPicture = (entry) => (isSample(entry.stem)
  ? `/review/${entry.stem}/depth?v=${entry.tag}` : `/images/${encodeURIComponent(entry.stem)}/depth`);

// Draws a mask, a proposal or an uncertainty map over the picture of an image or sample.
export async function drawOverlay(canvas, entry, kind) {
  canvas.dataset.kind = kind ?? "";
  if (!kind) return;
  const found = await getBytes(`${image(entry.stem)}/${kind}`).catch(() => null);
  const { width, height, classes, ignore_id } = store.project;
  if (!found || found.bytes.length !== width * height || canvas.dataset.kind !== kind) return;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  if (kind === "uncertainty") paintHeat(context, found.bytes, width);
  else paintMask(context, found.bytes, width, colorsOf(classes, ignore_id));
}
