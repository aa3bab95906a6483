// The panel of the image that is painted: who holds it, what is not saved, what a proposal is, what
// comes next.

import { el, icon, plural, single } from "./dom.js";
import { classesOfNow } from "./meaning.js";
import { drop, namesGone, saveOver, saveRest, undecided, waitingMask } from "./saver.js";
import { reload, store } from "./store.js";

export function imagePanel(session) {
  const work = undecided(session.stem);
  const load = () => showDisk(session).catch((error) => session.say(error.message, true));
  const gaps = session.steps.gaps;
  const parts = [el("h2", {}, session.title)];
  if (!session.opened) return el("section", { class: "panel" }, ...parts, el("p", { class: "note" }, "It is being read."));
  if (session.gone) return el("section", { class: "panel" }, ...parts, el("p", { class: "note warn" }, "This image is no longer in the set."));
  if (session.board.looking) {
    parts.push(el("p", { class: "note warn" }, icon("lock"), "Another tab holds this image; here you can only look."),
      el("button", { type: "button", class: "wide", onclick: () => session.hold(true).catch((error) => session.say(error.message, true)) }, "Take it over"));
  } else if (work?.problem.status === 412) {
    parts.push(el("p", { class: "note warn" }, "The mask has changed on disk since this tab read it."),
      el("button", { type: "button", class: "wide", onclick: load }, "Load what is on disk"),
      el("button", { type: "button", class: "wide", onclick: () => saveOver(session.stem) }, "Save mine over it"));
  } else if (work) {
    const gone = namesGone(work);
    parts.push(el("p", { class: "note warn" }, `Not saved: ${work.problem.message}`),
      el("button", { type: "button", class: "wide", onclick: () => keepRest(session, work) }, gone.length ? `Save mine without ${gone.join(", ")}` : "Save mine as it is"),
      el("button", { type: "button", class: "wide", onclick: load }, "Load what is on disk"));
  } else if (session.sample) {
    parts.push(el("p", { class: "note" }, "Correct what the ensemble has wrong. The pixels that you change count as its errors, and so do ignored ones. This teaches nothing."),
      el("button", { type: "button", class: "main wide", "data-focus": "next", onclick: () => session.next() }, "Done, back to Review ", el("kbd", {}, "N")));
  } else if (session.proposed) {
    parts.push(el("p", { class: "note" }, "Filled with the ensemble's proposal. Correct what is wrong, or accept it as it is."),
      el("div", { class: "pair accept" },
        el("button", { type: "button", class: "main", "data-focus": "accept", onclick: single(() => session.next()) }, "Accept ", el("kbd", {}, "N")),
        el("button", { type: "button", onclick: () => session.clear() }, "Start empty")));
  }
  if (session.entry.depth) parts.push(el("button", { type: "button", class: "wide", "data-focus": "depth", "aria-pressed": String(Boolean(session.deep)), onclick: () => session.toggleDepth() }, "Look at depth ", el("kbd", {}, "D")));
  if (session.sample) return el("section", { class: "panel" }, ...parts);
  if (!session.proposed && !session.board.readOnly) {
    const share = gaps < 0.0005 && gaps > 0 ? "under 0.1" : gaps < 0.1 ? (100 * gaps).toFixed(1) : Math.floor(100 * gaps);
    parts.push(el("p", { class: "note" }, gaps === 0 ? "Every pixel is labeled." : gaps === 1
      ? "Nothing is labeled yet. A click with the smart tool paints a whole region; parts are enough to learn from."
      : `${share}% unlabeled. Training skips those pixels, so parts are enough.`),
      el("button", { type: "button", class: "main wide", "data-focus": "next", onclick: single(() => session.next()) }, "Done, next image ", el("kbd", {}, "N")),
      el("div", { class: "pair" },
        el("button", { type: "button", "aria-pressed": String(session.board.showGaps), onclick: () => session.toggleGaps() }, "Show gaps ", el("kbd", {}, "G")),
        el("button", { type: "button", disabled: gaps === 1, onclick: () => session.clear() }, "Clear")));
  }
  const { learn } = store.project;
  if (learn.missing.length && !learn.rounds) {
    parts.push(el("p", { class: "note faint" }, `Learning starts when every class has a pixel somewhere. Missing: ${learn.missing.join(", ")}.`));
  } else if (learn.rounds) {
    parts.push(el("p", { class: "note faint" }, `${plural(Object.keys(learn.uncertainty).length, "image")} proposed in round ${learn.rounds}.`));
  }
  return el("section", { class: "panel" }, ...parts);
}

// Saves of what the server has refused what can be saved.
function keepRest(session, work) {
  saveRest(work);
  session.classes = classesOfNow();
  if (work.kind === "mask") session.steps.show(waitingMask(session.stem).pixels);
  else session.tools.points.reset();
}

// Shows what is on disk in the place of what is not saved.
async function showDisk(session) {
  drop(session.stem);
  await Promise.all([session.loadMask(), reload()]); // keypoints are a part of the project
  session.tools.points.reset();
  session.update();
}
