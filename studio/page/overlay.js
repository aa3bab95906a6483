// Masks as colored pictures of one pixel per label pixel.

import { rgb } from "./dom.js";

export function colorsOf(classes, ignoreId) {
  const table = new Uint8ClampedArray(256 * 4);
  classes.forEach((card, id) => table.set([...rgb(card.color), 255], id * 4));
  table.set([0, 0, 0, 0], ignoreId * 4);
  return table;
}

// The smallest area, {left, top, right, bottom}, around two; the first may be null.
export function united(a, b) {
  if (!a) return b;
  return {
    left: Math.min(a.left, b.left), top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right), bottom: Math.max(a.bottom, b.bottom),
  };
}

// Paints the mask, or an area of it, into a canvas of the mask's size.
export function paintMask(context, mask, width, table, area) {
  const colors = new Uint32Array(table.buffer);
  paintArea(context, mask, width, area, (value) => colors[value]);
}

// Marks what is unlabeled with a check that shows on any color.
export function paintGaps(context, mask, width, ignoreId, area) {
  const side = Math.max(1, Math.round(width / 128));
  paintArea(context, mask, width, area, (value, column, row) => {
    if (value !== ignoreId) return 0;
    return (Math.floor(column / side) + Math.floor(row / side)) % 2 ? 0xffd02fff : 0xff1c0023;
  });
}

// colorOf(value, column, row) is 0xAABBGGRR.
function paintArea(context, mask, width, area, colorOf) {
  const { left, top, right, bottom } = area ?? { left: 0, top: 0, right: width, bottom: mask.length / width };
  if (right <= left || bottom <= top) return;
  const part = context.createImageData(right - left, bottom - top);
  const out = new Uint32Array(part.data.buffer);
  let at = 0;
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) out[at++] = colorOf(mask[row * width + column], column, row);
  }
  context.putImageData(part, left, top);
}

// An uncertainty map as a heat of growing opacity.
export function paintHeat(context, values, width) {
  const part = context.createImageData(width, values.length / width);
  for (let i = 0; i < values.length; i++) {
    const value = Math.min(1, values[i] / 45);
    part.data.set([255, 90 + 140 * value, 40, 235 * value], i * 4);
  }
  context.putImageData(part, 0, 0);
}

export function maskCanvas(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  return { canvas, context: canvas.getContext("2d") };
}
