// The shell: steps, status, keys; shows the view that the address names.

import { isAtRisk } from "./copies.js";
import { exportView } from "./export.js";
import { el, redraw } from "./dom.js";
import { learnView, learningText } from "./learn.js";
import { paintView } from "./paint.js";
import { pickView } from "./pick.js";
import { reviewView } from "./review.js";
import { restorePoints, waiting } from "./saver.js";
import { changed, isLabelled, listen, refresh, store, subscribe } from "./store.js";

const VIEWS = { pick: pickView, paint: paintView, learn: learnView, review: reviewView, export: exportView };
const STEPS = [["pick", "Pick"], ["paint", "Paint"], ["learn", "Learn"], ["review", "Review"], ["export", "Export"]];
const KEYS = [
  ["1 to 9, 0", "class 1 to 9, ignore"],
  ["B E P F S", "brush, eraser, polygon, fill, smart select"],
  ["K H", "keypoints, move the image"],
  ["[ ]", "smaller, larger brush"],
  [", .", "smaller, larger smart selection"],
  ["Ctrl Z, Ctrl Y", "undo, redo"],
  ["+ − R", "zoom in, out, fit; the wheel zooms, too"],
  ["L", "keep what is painted: draw on unlabeled pixels only"],
  ["G O", "show gaps; hide the mask"],
  ["D", "look at the depth of the image, where the set has it"],
  ["Enter", "accept the proposal; close the polygon"],
  ["N", "done: the image that teaches most comes next"],
  ["Page up, down", "previous, next image"],
  ["R W C", "on the wall of Review: right, wrong, correct"],
  ["Arrows, Space", "on the image: move the cursor (Shift: by 8), draw"],
];
let leave = () => {};

function route() {
  const [name, written] = location.hash.slice(1).split("/");
  if (!VIEWS[name]) return { name: start(), stem: undefined };
  return { name, stem: written && stemOf(written) };
}

// Photographs keep their names, which may have a % of their own; the browser adds others, so that
// an address is compared with what it makes of each name.
function stemOf(written) {
  const linked = (entry) => new URL(`#/${entry.stem}`, location.href).hash.slice(2);
  const known = store.project.images.find((entry) => linked(entry) === written);
  if (known) return known.stem;
  try {
    return decodeURIComponent(written);
  } catch {
    return written;
  }
}

// A new project begins with its images; one with labels, with painting.
function start() {
  return store.project.images.some(isLabelled) ? "paint" : "pick";
}

function show() {
  leave();
  document.querySelector("#keys").close(); // a dialog of the page that was left
  const { name, stem } = route();
  const view = document.querySelector("#view");
  view.className = name;
  document.title = `${STEPS.find(([key]) => key === name)[1]} · ${store.project.name} · studio`;
  leave = VIEWS[name](view, stem) ?? (() => {});
  steps();
}

function steps() {
  const { name } = route();
  const done = store.project.images.filter(isLabelled).length;
  const facts = {
    pick: `${store.project.images.length} images`,
    paint: `${done} labeled`,
    learn: store.project.learn.rounds ? `round ${store.project.learn.rounds}` : "not yet",
    review: "",
    export: { done: "bundle ready", failed: "failed", none: "" }[store.project.export.phase] ?? "running",
  };
  redraw(document.querySelector("#steps"),
    ...STEPS.map(([key, title], number) =>
      el("a", { href: `#${key}`, "aria-current": key === name ? "page" : null },
        el("b", {}, String(number + 1)), el("span", {}, title), el("small", {}, facts[key]))));
}

function status() {
  const open = waiting(), stuck = !store.online || open.some((work) => work.problem || work.reason);
  const saved = document.querySelector("#saved"), banner = document.querySelector("#banner");
  saved.textContent = !open.length ? "All saved" : stuck ? `${open.length} not saved` : "Saving";
  saved.className = !open.length ? "ok" : stuck ? "alarm" : "";
  const lines = linesOf(open);
  banner.hidden = !lines.length;
  banner.textContent = lines.join(" ");
  if (!store.project) return;
  const chip = document.querySelector("#learning");
  chip.textContent = learningText(store.project.learn);
  chip.className = `chip ${store.project.learn.phase}`;
}

// What is wrong with the server, the project or the browser.
function linesOf(open) {
  const refused = open.find((work) => work.reason?.status && !work.problem), { stale } = store, lines = [];
  if (refused) lines.push(`Not saved: ${refused.reason.message.trim()}. It is tried again every second.`);
  else if (!store.online) {
    lines.push("The server is away. Go on painting: this tab keeps every stroke and saves it when the same command runs again.");
  } else if (stale) lines.push(`The project could not be read, and what is shown may be old: ${stale.reason}. It is read again in ${stale.pause} s.`);
  if (open.some(isAtRisk)) lines.push("This browser has no room to keep more: what is not saved is lost if this tab is closed.");
  if (store.aside) lines.push(store.aside);
  return lines;
}

function keys() {
  const dialog = document.querySelector("#keys");
  dialog.replaceChildren(
    el("h2", { id: "keys-title" }, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)])),
    el("p", {}, "Pen and touch paint; two fingers move and zoom."),
    el("button", { type: "button", class: "main", onclick: () => dialog.close() }, "Close"));
  dialog.showModal();
}

document.querySelector("#help").addEventListener("click", keys);
document.querySelector("#learning").addEventListener("click", () => (location.hash = "#learn"));
addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.closest("input, textarea")) keys();
});
addEventListener("focus", () => refresh()); // another program may have written masks
addEventListener("beforeunload", (event) => {
  if (waiting().length) event.preventDefault();
});
subscribe((what) => {
  status();
  if (["project", "saved", "learn", "export", "saving"].includes(what)) steps();
});
await refresh();
addEventListener("hashchange", show);
listen();
restorePoints();
show();
changed("start");
