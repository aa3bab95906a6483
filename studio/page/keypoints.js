// Keypoints: place, drag, hide. A point is visible or not there, as in the label files.

import { el, icon } from "./dom.js";
import { editList } from "./lists.js";
import { savePoints } from "./saver.js";
import { entryOf, of, store } from "./store.js";

const GRAB_PX = 12;

export class PointTool {
  constructor(session) {
    this.session = session;
    this.active = 0;
    this.reset();
  }

  reset() {
    if (this.dragging) return;
    const { names } = store.project.keypoints;
    this.names = names; // that the rows are of, also if there are others by the time they are saved
    const given = entryOf(this.session.stem)?.points;
    this.any = given !== null && given !== undefined;
    this.rows = names.map((_, k) => (given?.[k] ? [...given[k]] : [0, 0, 0]));
    this.proposed = false;
    const proposal = of(this.session.stem, store.project.learn.points);
    if (!this.any && proposal?.length === names.length) {
      this.rows = proposal.map(([x, y]) => [x, y, 1]);
      this.proposed = true;
    }
    this.seen = proposal;
    this.active = Math.max(0, this.any ? this.active : this.rows.findIndex((row) => !row[2]));
  }

  // Proposed anew, and nothing is placed.
  propose() {
    const proposal = of(this.session.stem, store.project.learn.points);
    if (!this.any && JSON.stringify(proposal) !== JSON.stringify(this.seen)) this.reset();
  }

  shown() {
    const { skeleton } = store.project.keypoints;
    return { rows: this.rows, names: this.names, skeleton, active: this.session.settings.tool === "points" ? this.active : -1 };
  }

  down(at) {
    const { board } = this.session;
    if (!this.rows.length) return this.session.say("Name the keypoints first, in the panel at the right.");
    const near = this.rows.findIndex(([x, y, visible]) => visible && Math.hypot(x - at.x, y - at.y) * board.scale < GRAB_PX);
    this.before = this.rows.map((row) => [...row]);
    this.placed = near < 0;
    if (near >= 0) this.active = near;
    this.dragging = true;
    this.move(at, near >= 0);
  }

  move(at, grabbed = false) {
    if (!this.dragging || grabbed) return this.redraw();
    const { width, height } = this.session;
    this.rows[this.active] = [Math.min(width, Math.max(0, at.x)), Math.min(height, Math.max(0, at.y)), 1];
    this.redraw();
  }

  up() {
    if (!this.dragging) return;
    this.dragging = false;
    this.save();
    const open = this.rows.findIndex((row, k) => !row[2] && k > this.active);
    if (this.placed && open >= 0) this.active = open;
    this.session.update();
  }

  cancel() {
    if (this.dragging) this.rows = this.before;
    this.dragging = false;
    this.redraw();
  }

  redraw() {
    this.session.board.points = this.shown();
    this.session.board.draw();
  }

  save(points = this.rows) {
    this.any = points !== null;
    this.proposed = false;
    this.session.edited = true;
    savePoints(this.session.stem, points?.map(([x, y, v]) => [x, y, v ? 1 : 0]) ?? null, this.names);
  }
}

export function keypointsPanel(session, tool) {
  const { names } = store.project.keypoints;
  const rows = names.map((name, k) => {
    const visible = Boolean(tool.rows[k]?.[2]);
    return el("li", {},
      el("button", { type: "button", class: "class", "data-focus": `point${k}`, "aria-pressed": String(k === tool.active), onclick: () => { tool.active = k; session.update(); } },
        el("span", {}, name), el("small", {}, visible ? "visible" : "not set")),
      el("button", { type: "button", class: "small", disabled: !visible || session.board.readOnly, "aria-label": `${name} cannot be seen`, title: "Cannot be seen", onclick: () => { tool.rows[k][2] = 0; tool.save(); session.update(); } }, icon("close")));
  });
  const parts = [el("div", { class: "heading" }, el("h2", {}, "Keypoints"),
    el("button", { type: "button", class: "plain", onclick: () => editNames() }, "Edit"))];
  if (!names.length) parts.push(el("p", { class: "note" }, "No keypoints are named yet. Edit the list, then click each point in turn."));
  else parts.push(el("ul", { class: "classes points" }, ...rows));
  if (session.board.readOnly) return [el("section", { class: "panel" }, ...parts)];
  if (tool.proposed) {
    parts.push(el("p", { class: "note" }, "Proposed by the ensemble; drag what is wrong."),
      el("button", { type: "button", class: "main wide", onclick: () => { tool.save(); session.update(); } }, "Accept these points"));
  } else if (tool.any) {
    parts.push(el("button", { type: "button", class: "wide", onclick: () => { tool.save(null); tool.reset(); session.update(); } }, "Remove all points"));
  }
  return [el("section", { class: "panel" }, ...parts)];
}

function editNames() {
  const list = el("textarea", { id: "pointnames", rows: 8, spellcheck: "false" });
  const lines = el("textarea", { id: "pointlines", rows: 6, spellcheck: "false" });
  editList("keypoints", "Keypoints", [
    el("label", { for: "pointnames" }, "Names, one per line"), list,
    el("label", { for: "pointlines" }, "Lines of the skeleton, as nose - chin"), lines,
  ], {
    fill: () => {
      const { names, skeleton } = store.project.keypoints;
      list.value = names.join("\n");
      lines.value = skeleton.map(([a, b]) => `${names[a]} - ${names[b]}`).join("\n");
    },
    read: () => {
      const names = list.value.split("\n").map((name) => name.trim()).filter(Boolean);
      const skeleton = lines.value.split("\n").filter((line) => line.trim()).map((line) => {
        const ends = line.split(" - ").map((name) => names.indexOf(name.trim()));
        if (ends.length !== 2 || ends.includes(-1)) throw new Error(`${line}: write NAME - NAME`);
        return ends;
      });
      return { names, skeleton };
    },
  });
}
