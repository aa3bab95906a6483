// Keys of the page Paint, but for those that the canvas takes itself.

import { TOOLS } from "./stage.js";
import { store } from "./store.js";

export function pressed(session, event) {
  if (event.target.closest("input:not([type=range]), textarea, dialog")) return;
  const letter = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (letter === "z" && !event.shiftKey) session.undo();
    else if (letter === "y" || letter === "z") session.redo();
    else return;
    event.preventDefault();
    return;
  }
  if (event.altKey) return;
  if (event.repeat && (letter === "n" || letter === "enter")) return; // a key held down accepts one
  const tool = TOOLS.find(([, , key]) => key === letter);
  const acts = {
    "[": () => session.setSize(session.settings.size - Math.max(1, Math.round(session.settings.size / 8))),
    "]": () => session.setSize(session.settings.size + Math.max(1, Math.round(session.settings.size / 8))),
    ",": () => session.tools.smart.adjust(-1), ".": () => session.tools.smart.adjust(1),
    "+": () => session.board.zoom(1.25), "=": () => session.board.zoom(1.25), "-": () => session.board.zoom(0.8), r: () => session.board.fit(),
    g: () => session.toggleGaps(), d: () => session.toggleDepth(), n: () => session.next(),
    o: () => { session.board.showMask = !session.board.showMask; session.board.draw(); },
    l: () => { session.settings.protect = !session.settings.protect; session.update(); },
    pageup: () => session.step(-1), pagedown: () => session.step(1),
    escape: () => session.board.tool?.cancel?.(),
  };
  if (letter === "enter" && !event.target.closest("button, a")) {
    if (session.board.outline?.length) session.tools.polygon.finish();
    else session.accept();
  } else if (/^[0-9]$/.test(letter) && session.settings.tool !== "points") {
    const id = Number(letter) - 1;
    if (id < store.project.classes.length) session.useClass(id);
  } else if (tool && session.has(tool[0])) session.useTool(tool[0]);
  else if (acts[letter]) acts[letter]();
  else return;
  event.preventDefault();
}
