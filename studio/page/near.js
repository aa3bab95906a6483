// Which tiles of a long wall are near the window: what the others show is let go, so that a wall of
// any length takes the memory of a few rows.

const MARGIN = "300px 0px"; // above and below what is shown

export class Near {
  // `view` scrolls; tiles are elements within it.
  constructor(view) {
    this.tells = new WeakMap();
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.tells.get(target)?.(isIntersecting);
    }, { root: view, rootMargin: MARGIN });
  }

  // Calls tell(true) when a tile comes near, and tell(false) when it is not any more.
  watch(tile, tell) {
    this.tells.set(tile, tell);
    this.observer.observe(tile);
  }

  close() {
    this.observer.disconnect();
  }
}
