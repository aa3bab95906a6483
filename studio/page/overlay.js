// Masks as colored pictures of one pixel per label pixel.

import { rgb } from "./dom.js";

export function colorsOf(classes, ignoreId) {
  const table = new Uint8ClampedArray(256 * 4);
  classes.forEach((card, id) => table.set([...rgb(card.color), 255], id * 4));
  table.set([0, 0, 0, 0], ignoreId * 4);
  return table;
}

// Paints rows [top, bottom) of the mask into a canvas of the mask's size.
export function paintMask(context, mask, width, table, top = 0, bottom = mask.length / width) {
  const part = context.createImageData(width, bottom - top);
  const out = new Uint32Array(part.data.buffer), colors = new Uint32Array(table.buffer);
  for (let i = 0; i < out.length; i++) out[i] = colors[mask[top * width + i]];
  context.putImageData(part, 0, top);
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
