// How good the labels are on images that were left out of the training: curves and tables.

import { el, plural } from "./dom.js";

const WIDTH = 330, HEIGHT = 190, LEFT = 40, RIGHT = 16, TOP = 30, BOTTOM = 38;
const percent = (value) => (value === null ? "no pixel" : `${(100 * value).toFixed(1)}%`);
const minutes = (seconds) => (seconds / 60).toFixed(seconds < 570 ? 1 : 0);

export function progressView(learn) {
  const { estimates, estimating, work_s } = learn;
  const parts = [el("h2", {}, "How good it is on images that it has not seen")];
  const now = estimating ? `Estimating: ${estimating.step} of ${estimating.steps} parts are done. ` : "";
  const last = estimates.at(-1);
  if (!last) {
    parts.push(el("p", { class: "lead" }, `${now}After a round, with two labeled images or more, each is labeled by an ensemble that was trained without it. Work so far: ${minutes(work_s)} min.`));
    return parts;
  }
  const method = last.folds === last.images ? "each was left out alone" : `they were left out in ${last.folds} groups`;
  parts.push(
    el("p", { class: "lead" }, `${now}mIoU ${percent(last.miou)} with ${plural(last.images, "labeled image")} and ${minutes(last.seconds)} minutes of work: ${method}, and labeled by a small ensemble that was trained without them. It is rather too low for the ensemble that learns from all of them. Work so far: ${minutes(work_s)} min.`),
    el("div", { class: "findings estimate" },
      el("div", { class: "charts" },
        chart(estimates, (one) => one.images, "labeled images"),
        chart([...estimates].sort((a, b) => a.seconds - b.seconds), (one) => one.seconds / 60, "minutes of work")),
      classTable(last, estimates.at(-2)),
      curveTable(estimates)));
  return parts;
}

function classTable(last, before) {
  const change = (name) => {
    const now = last.iou[name], then = before?.iou[name];
    if (now === null || then === undefined || then === null) return "";
    return `${now >= then ? "+" : "−"}${(100 * Math.abs(now - then)).toFixed(1)}`;
  };
  return table("IoU by class", ["Class", "IoU", "since"],
    Object.entries(last.iou).map(([name, iou]) => [name, percent(iou), change(name)]));
}

function curveTable(estimates) {
  return table("The curves", ["Images", "min", "mIoU"],
    estimates.map((one) => [String(one.images), minutes(one.seconds), percent(one.miou)]));
}

function table(caption, head, rows) {
  return el("div", { class: "shares scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {},
      el("th", { scope: "row" }, first), ...rest.map((text) => el("td", {}, text)))))));
}

// A line; its axis begins at a multiple of 20%, and the tables have the same numbers.
function chart(estimates, value, unit) {
  const most = niceEnd(Math.max(...estimates.map(value)));
  const x = (one) => LEFT + (WIDTH - LEFT - RIGHT) * (value(one) / most);
  const low = Math.min(0.8, Math.floor(5 * Math.min(...estimates.map((one) => one.miou))) / 5);
  const y = (share) => TOP + ((HEIGHT - TOP - BOTTOM) * (1 - share)) / (1 - low);
  const points = estimates.map((one) => `${x(one).toFixed(1)},${y(one.miou).toFixed(1)}`);
  const grid = [0, 1, 2, 3, 4].map((step) => low + ((1 - low) * step) / 4).flatMap((share) => [
    svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share), class: "grid" }),
    svg("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, String(Math.round(100 * share)))]);
  const ticks = [0, most / 2, most].map((at) =>
    svg("text", { x: LEFT + (WIDTH - LEFT - RIGHT) * (at / most), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(at)));
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `mIoU in percent over ${unit}; the table has the numbers` },
    ...grid, ...ticks,
    svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, unit),
    svg("text", { x: 8, y: TOP - 12 }, "mIoU, %"),
    svg("polyline", { points: points.join(" "), class: "curve" }),
    ...estimates.map((one) => svg("circle", { cx: x(one), cy: y(one.miou), r: 3.5, class: "dot" })));
}

// The next of 2, 4, 10, 20, 40, ...: half of it is a round number, too.
function niceEnd(value) {
  const scale = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [2, 4, 10, 20].map((step) => step * scale).find((end) => end >= value);
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
