// Shapes as pixels of a mask: one class per pixel, no smooth edges, so no gaps between neighbors.
// Every function calls put(index) for the pixels of its shape.

// Pixels whose centers lie within `radius` of the line from (x0, y0) to (x1, y1). Returns the area
// that they lie in; null: outside of the mask.
export function stroke(width, height, x0, y0, x1, y1, radius, put) {
  const at = (x, y) => {
    const column = Math.floor(x), row = Math.floor(y);
    if (column >= 0 && row >= 0 && column < width && row < height) put(row * width + column);
  };
  at(x1, y1);
  const dx = x1 - x0, dy = y1 - y0, squared = dx * dx + dy * dy;
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
  const right = Math.min(width - 1, Math.ceil(Math.max(x0, x1) + radius));
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(y0, y1) + radius));
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const px = column + 0.5 - x0, py = row + 0.5 - y0;
      const along = squared ? Math.min(1, Math.max(0, (px * dx + py * dy) / squared)) : 0;
      const ex = px - along * dx, ey = py - along * dy;
      if (ex * ex + ey * ey <= radius * radius) put(row * width + column);
    }
  }
  return left > right || top > bottom ? null : { left, top, right: right + 1, bottom: bottom + 1 };
}

// Pixels whose centers lie within a polygon [[x, y], ...] (even-odd).
export function polygon(width, height, corners, put) {
  for (let row = 0; row < height; row++) {
    const y = row + 0.5, crossings = [];
    for (let i = 0; i < corners.length; i++) {
      const [x0, y0] = corners[i], [x1, y1] = corners[(i + 1) % corners.length];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) * (x1 - x0)) / (y1 - y0));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const first = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const end = Math.min(width, Math.ceil(crossings[i + 1] - 0.5));
      for (let column = first; column < end; column++) put(row * width + column);
    }
  }
}

// The connected pixels that have the value of the one at (x, y), by runs of a row.
export function flood(mask, width, height, x, y, put) {
  const column = Math.floor(x), row = Math.floor(y), value = mask[row * width + column];
  const seen = new Uint8Array(mask.length), open = [row * width + column];
  while (open.length) {
    const start = open.pop();
    if (seen[start]) continue;
    const first = start - (start % width), last = first + width - 1;
    let left = start, right = start;
    while (left > first && mask[left - 1] === value) left--;
    while (right < last && mask[right + 1] === value) right++;
    for (let index = left; index <= right; index++) {
      seen[index] = 1;
      put(index);
    }
    for (const by of [-width, width]) {
      if (left + by < 0 || left + by >= mask.length) continue;
      for (let index = left + by; index <= right + by; index++) {
        const begins = index === left + by || mask[index - 1] !== value;
        if (begins && mask[index] === value && !seen[index]) open.push(index);
      }
    }
  }
}
