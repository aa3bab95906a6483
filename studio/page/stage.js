// The canvas of the page Paint, with the tools above it and what is said on it.

import { el, icon } from "./dom.js";
import { store } from "./store.js";

export const TOOLS = [
  ["brush", "Brush", "b"], ["eraser", "Eraser", "e"], ["polygon", "Polygon", "p"], ["fill", "Fill", "f"],
  ["smart", "Smart", "s"], ["points", "Points", "k"], ["pan", "Move", "h"],
];

// Its elements by name; `stage` is that which holds the others.
export function stageOf(session) {
  const { settings, title } = session;
  const tool = ([name, text, key]) =>
    el("button", { type: "button", "data-tool": name, title: `${text} (${key.toUpperCase()})`, "aria-pressed": "false", onclick: () => session.useTool(name) },
      icon(name), el("span", {}, text), el("kbd", { "aria-hidden": "true" }, key.toUpperCase()));
  const small = (name, text, act) => el("button", { type: "button", class: "small", title: text, "aria-label": text, onclick: act }, icon(name));
  const toolbar = el("div", { class: "tools", role: "toolbar", "aria-label": "Tools" }, ...TOOLS.filter(([name]) => session.has(name)).map(tool));
  const sizeInput = el("input", { type: "range", min: "1", max: String(Math.max(16, Math.round(session.width / 4))), "aria-label": "Brush size in pixels",
    oninput: () => session.setSize(Number(sizeInput.value)) });
  const sizeText = el("output", {});
  const opacityInput = el("input", { type: "range", min: "0", max: "100", value: String(settings.opacity * 100), "aria-label": "Opacity of the mask",
    oninput: () => session.setOpacity(Number(opacityInput.value) / 100) });
  const undoButton = small("undo", "Undo (Ctrl Z)", () => session.undo());
  const redoButton = small("redo", "Redo (Ctrl Y)", () => session.redo());
  const canvas = el("canvas", { tabindex: "0", class: "board", role: "application",
    "aria-label": `${title}. Arrows move the cursor, space draws, number keys choose a class.` });
  const hover = el("div", { class: "hover" });
  const message = el("div", { class: "message", role: "status", hidden: true });
  const smartBar = el("div", { class: "smartbar", hidden: true },
    small("minus", "Smaller selection (,)", () => session.tools.smart.adjust(-1)),
    small("plus", "Larger selection (.)", () => session.tools.smart.adjust(1)),
    el("span", {}, "Adjust the last selection"));
  const stage = el("section", { class: "stage", "aria-label": "Canvas" },
    el("div", { class: "above" }, toolbar,
      el("label", { class: "slider" }, "Size", sizeInput, sizeText),
      el("label", { class: "slider" }, "Mask", opacityInput),
      el("div", { class: "group" }, undoButton, redoButton)),
    el("div", { class: "holder" }, canvas, hover, smartBar, message,
      el("div", { class: "zoom" }, small("plus", "Zoom in (+)", () => session.board.zoom(1.25)),
        small("fit", "Fit (R)", () => session.board.fit()), small("minus", "Zoom out (−)", () => session.board.zoom(0.8)))));
  return { stage, toolbar, sizeInput, sizeText, undoButton, redoButton, canvas, hover, message, smartBar };
}

// Says what is under the pointer, at a position in image pixels.
export function showPlace(session, { x, y }) {
  const column = Math.floor(x), row = Math.floor(y);
  const inside = column >= 0 && row >= 0 && column < session.width && row < session.height;
  const id = inside ? session.mask[row * session.width + column] : -1;
  const name = id === session.ignoreId ? "unlabeled" : store.project.classes[id]?.name;
  const text = inside ? `${name} · ${column}, ${row}` : "";
  if (session.hover.textContent !== text) session.hover.textContent = text;
}
