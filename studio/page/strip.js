// The strip beside the canvas: every image of the set, and how far it is; which comes next.

import { thumbnail } from "./api.js";
import { el, icon, redraw } from "./dom.js";
import { heldElsewhere, isLabelled, of, store } from "./store.js";

export class Strip {
  // `current`: the image that is open; null: a sample of Review, which leads back there.
  constructor(current) {
    this.current = current;
    this.view = el("nav", { class: "strip", "aria-label": "Images" });
    this.links = new Map(); // stem -> {link, shown}
    if (current === null) this.view.append(el("a", { href: "#review", class: "back" }, "Back to Review"));
  }

  // Makes links of new images, and changes those whose words have changed.
  show() {
    if (this.current === null) return;
    const { images, learn } = store.project, first = !this.links.size;
    const made = images.map((entry) => this.link(entry, this.words(entry, learn)));
    if (made.length !== this.view.children.length || made.some((link, i) => link !== this.view.children[i])) {
      const scroll = this.view.scrollTop;
      redraw(this.view, ...made);
      this.view.scrollTop = scroll;
    }
    if (first) this.view.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  words(entry, learn) {
    if (heldElsewhere(entry.stem)) return "in another tab";
    if (isLabelled(entry)) return "labeled";
    if (of(entry.stem, learn.uncertainty) === undefined) return "to do";
    return learn.next[0] === entry.stem ? "teaches most" : "proposed";
  }

  link(entry, words) {
    const shown = `${entry.sha} ${words}`, known = this.links.get(entry.stem);
    if (known?.shown === shown) return known.link;
    const done = isLabelled(entry), held = heldElsewhere(entry.stem);
    const link = el("a", { href: `#paint/${entry.stem}`, class: done ? "done" : "", "aria-current": entry.stem === this.current ? "true" : null },
      el("img", { src: thumbnail(entry), alt: "", loading: "lazy", width: 64, height: 64 }),
      el("span", { class: "what" }, el("b", {}, entry.stem), el("small", {}, words)),
      held ? icon("lock") : done ? icon("check") : null);
    this.links.set(entry.stem, { link, shown });
    return link;
  }
}

// The image `by` places further; after the last comes the first.
export function neighbor(stem, by) {
  const { images } = store.project;
  const at = images.findIndex((entry) => entry.stem === stem);
  return images[(at + by + images.length) % images.length].stem;
}

// The image that teaches most and that no other tab holds, else the one after this.
export function nextImage(after) {
  const free = store.project.learn.next.find((stem) => stem !== after && !heldElsewhere(stem));
  return free ?? neighbor(after, 1);
}
