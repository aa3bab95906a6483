// Review: fresh samples, what a person says of them, and what follows for those that are kept.

import { getJson, image, request, send, thumbnail } from "./api.js";
import { el, icon, plural, redraw } from "./dom.js";
import { depthPicture, drawOverlay } from "./learn.js";
import { Near } from "./near.js";
import { paintSample } from "./paint.js";
import { store, subscribe } from "./store.js";

const chosen = { threshold: 0, error: 0.05, show: "mask" };
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const atMost = (value) => `${(Math.ceil(1000 * value) / 10).toFixed(1)}%`; // a bound is never rounded down

export function reviewView(view, stem) {
  if (stem) return paintSample(view, stem);
  const problem = el("p", { class: "alarm", role: "alert" }), status = el("div", { class: "learning" });
  const facts = el("section", { class: "proof", "aria-label": "What the reviews prove" });
  const shares = el("section", { class: "shares", "aria-label": "Class shares" });
  const wall = el("ul", { class: "grid wall review" });
  const counts = el("output", {});
  const slider = el("input", { type: "range", min: "0", max: "3", step: "1", value: String(chosen.threshold), id: "threshold",
    oninput: () => { chosen.threshold = Number(slider.value); show(); } });
  const asked = el("input", { type: "number", min: "0.1", max: "99", step: "0.1", value: String(100 * chosen.error), id: "asked",
    onchange: () => {
      const value = Number(asked.value);
      if (!(value > 0 && value < 100)) return (problem.textContent = "Ask for an error between 0 and 100 percent.");
      chosen.error = value / 100;
      load();
    } });
  const shown = el("select", { id: "shown", onchange: () => { chosen.show = shown.value; show(); } },
    ...[["mask", "labels"], ["uncertainty", "uncertainty"], ["depth", "depth"]].map(([value, text]) =>
      el("option", { value, selected: chosen.show === value }, text)));
  const controls = el("div", { class: "controls" },
    el("span", {}, el("label", { class: "slider", for: "threshold" }, "Threshold"), slider, counts),
    el("span", {}, el("label", { class: "slider", for: "asked" }, "Error you allow, %"), asked),
    el("span", {}, el("label", { class: "slider", for: "shown" }, "Show"), shown));
  const page = el("div", { class: "page" }), near = new Near(page), tiles = new Map();
  let state = null, closed = false, loading = false, again = false;

  const act = async (work) => {
    try {
      await work();
      problem.textContent = "";
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  // One request at a time; what comes meanwhile asks once more.
  const load = async () => {
    again = true;
    if (loading) return;
    loading = true;
    while (again && !closed) {
      again = false;
      await act(async () => {
        state = await getJson(`/api/review?error=${chosen.error}`);
        if (!closed) show();
      });
    }
    loading = false;
  };
  const say = (sample, verdict) => act(() => send("PUT", `${image(sample.stem)}/verdict`, { verdict: sample.verdict === verdict ? null : verdict }));

  const show = () => {
    if (!state) return;
    const { samples, statements } = state, row = statements[chosen.threshold];
    showStatus();
    for (const part of [controls, facts, shares]) part.hidden = !samples.length;
    for (const [stem, tile] of tiles) {
      if (samples.some((sample) => sample.stem === stem)) continue;
      tile.item.remove();
      tiles.delete(stem);
    }
    samples.forEach((sample, index) => {
      if (!tiles.has(sample.stem)) {
        tiles.set(sample.stem, new Tile(sample, index, say, near));
        wall.append(tiles.get(sample.stem).item);
      }
      tiles.get(sample.stem).show(sample, kept(sample, row));
    });
    if (!samples.length) return;
    shown.querySelector("[value=depth]").hidden = !samples.some((sample) => sample.depth);
    const many = samples.filter((sample) => kept(sample, row)).length;
    counts.textContent = `${many} kept, ${samples.length - many} discarded`;
    slider.setAttribute("aria-valuetext", `${counts.textContent}: ${nameOf(row)}`);
    redraw(facts, ...proof(state, row));
    showShares(shares, state, row);
  };
  const showStatus = () => {
    const { source, drawing, drawn, wanted, message, samples } = state;
    const whose = source === "export" ? "the ensemble of your bundle" : "the ensemble of the last round of Learn";
    // A round ends with other weights, and samples of these would be of no use.
    const learning = source === "learn" && store.project.learn.phase !== "idle";
    const parts = [];
    if (!source) parts.push(el("p", {}, "Nothing is learned yet. Train on a label first, then come back."));
    else parts.push(el("p", { role: "status" }, drawing
      ? `Drawing samples: ${drawn} of ${wanted}${drawn ? "" : "; the first ones take longest, since the thresholds come before them"}`
      : samples.length ? `${plural(samples.length, "fresh sample")}, labeled by ${whose}.` : `New samples that nobody has seen, labeled by ${whose}.`));
    if (learning && !drawing) parts.push(el("p", { class: "note faint" }, "A round is being learned; samples of its ensemble can be drawn when it is done."));
    if (drawing) parts.push(el("progress", { max: 1, value: drawn / wanted, "aria-label": "Samples drawn" }));
    if (message) parts.push(el("p", { class: "alarm" }, message));
    parts.push(el("div", { class: "pair inline" },
      el("button", { type: "button", class: samples.length ? null : "main", disabled: drawing || learning || !source, onclick: () => act(() => request("POST", "/api/review")) },
        samples.length ? "Draw 32 more" : "Draw samples"),
      state.counted ? el("a", { class: "button", href: "/api/review/certificate", download: "certificate.json" }, "Download the certificate") : null));
    redraw(status, ...parts);
  };
  page.append(
    el("h1", {}, "What can be promised"),
    el("p", { class: "lead" }, "Say of each sample whether its labels are right, or correct them; then the page says what that proves of all samples that a threshold keeps. Rest on a sample to see where the ensemble is unsure. On the wall, R is right, W is wrong, C corrects."),
    status, problem, controls, el("div", { class: "findings" }, facts, shares), wall);
  view.replaceChildren(page);
  for (const part of [controls, facts, shares]) part.hidden = true;
  load();
  const unsubscribe = subscribe((what) => ["review", "learn", "export", "online"].includes(what) && load());
  return () => {
    closed = true;
    unsubscribe();
    near.close();
  };
}

const kept = (sample, row) => row.threshold === null || sample.uncertainty <= row.threshold;
const nameOf = (row) => (row.threshold === null ? "every sample" : `the surest ${Math.round(100 * row.keep)}%`);

// What is proved, in words that claim no more than that.
function proof(state, row) {
  const { counted, reviewed, statements } = state, asked = chosen.error;
  if (!counted) return [el("h2", {}, "Nothing is proved yet"), el("p", {}, `Begin with sample 1; reviews count in the order of the wall, so that nobody's choice decides.${row.more ? ` If all are right, about ${row.more} reviews prove an error of at most ${percent(asked)}.` : ""}`)];
  const parts = [
    el("h2", {}, `Keep ${nameOf(row)}: at most ${atMost(row.upper_bound)} wrong, with 95% confidence`),
    el("p", {}, row.mean === null ? "None of the reviewed samples is kept." : `The mean share of wrong pixels over all samples that are kept, as you would judge them. Among the ${plural(row.reviewed, "reviewed one")} it is ${percent(row.mean)}.`),
    row.threshold === null ? null : el("p", { class: "note faint" }, `In a stream: ${state.bundle.calibrated ? `keep_fraction=${row.keep}` : `max_uncertainty=${row.threshold}`}`)];
  const meets = statements.findIndex((one) => one.upper_bound <= asked);
  const next = statements.map((one) => one.more).filter((more) => more !== null);
  if (meets >= 0) {
    parts.push(el("p", { class: "ok" }, icon("check"), `An error of at most ${percent(asked)} is proved for ${nameOf(statements[meets])}.`));
  } else if (next.length) {
    const fewest = Math.min(...next), at = statements.findIndex((one) => one.more === fewest);
    parts.push(el("p", { class: "warn" }, `At most ${percent(asked)} is not proved at any threshold. About ${fewest} more reviews would do for ${nameOf(statements[at])}, if they go on like those so far.`));
  } else {
    parts.push(el("p", { class: "warn" }, `At most ${percent(asked)} is not proved at any threshold, and more reviews like these would not do it. Label more images, or allow more.`));
  }
  const average = statements.findIndex((one) => one.expected_risk <= asked);
  parts.push(el("p", { class: "note faint" }, `Conformal risk control, on average and for a number of reviews fixed beforehand: ${average >= 0
    ? `keep ${nameOf(statements[average])}; the expected share of wrong pixels in the next sample is then at most ${percent(asked)}, where a discarded one has none.`
    : `no threshold has an expected error of at most ${percent(asked)} yet; here the bound is ${atMost(row.expected_risk)}.`}`));
  if (reviewed > counted) parts.push(el("p", { class: "warn" }, `${plural(reviewed - counted, "review")} will count once sample ${counted + 1} has one.`));
  parts.push(el("p", { class: "note faint" }, "The bounds hold for all four thresholds at once, and however often you look. They speak of labels as PyTorch computes them."));
  return parts.filter((part) => part !== null);
}

function showShares(view, { samples, classes }, row) {
  const names = classes ?? store.project.classes.map((card) => card.name); // as the ensemble knows them
  const mean = (some, id) => (some.length ? some.reduce((sum, sample) => sum + sample.shares[id], 0) / some.length : 0);
  const few = samples.filter((sample) => kept(sample, row));
  view.replaceChildren(el("table", {},
    el("caption", {}, "Share of pixels"),
    el("thead", {}, el("tr", {}, ...["Class", "all", "kept"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...samples[0].shares.map((_, id) => el("tr", {},
      el("th", { scope: "row" }, names[id] ?? `class ${id + 1}`),
      el("td", {}, percent(mean(samples, id))), el("td", {}, percent(mean(few, id))))))));
}

class Tile {
  constructor(sample, index, say, near) {
    const number = index + 1;
    this.entry = sample;
    this.canvas = el("canvas", { width: 0, height: 0, "aria-hidden": "true" });
    this.fact = el("small", {});
    const button = (verdict, name, text) => el("button", { type: "button", class: "small", title: text, "aria-label": `Sample ${number} is ${verdict}`, onclick: () => say(this.entry, verdict) }, icon(name));
    this.right = button("right", "check", "Right (R)");
    this.wrong = button("wrong", "close", "Wrong (W)");
    this.correct = el("a", { class: "button small", href: `#review/${sample.stem}`, title: "Correct (C)", "aria-label": `Correct sample ${number}` }, icon("brush"));
    this.picture = el("img", { loading: "lazy", alt: `Sample ${number}` });
    this.item = el("li", {},
      el("span", { class: "stack" }, this.picture, this.canvas),
      el("span", { class: "under" }, el("b", {}, String(number)), this.fact),
      el("span", { class: "verdicts", role: "group", "aria-label": `Verdict on sample ${number}` }, this.right, this.wrong, this.correct));
    for (const [kind, rests] of [["pointerenter", true], ["pointerleave", false]]) {
      this.item.addEventListener(kind, () => {
        this.rests = rests;
        this.draw();
      });
    }
    near.watch(this.item, (isNear) => {
      this.near = isNear;
      this.draw();
    });
    this.item.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key.toLowerCase();
      if (key === "r" || key === "w") {
        const verdict = key === "r" ? "right" : "wrong";
        if (this.entry.verdict !== verdict) say(this.entry, verdict);
        this.item.nextElementSibling?.querySelector("button").focus();
      } else if (key === "c") {
        this.correct.click();
      } else return;
      event.preventDefault();
    });
  }

  // Depth has a picture of its own in place of the image; the others lie over the image, while the
  // tile is near the window.
  draw() {
    const kind = this.rests ? "uncertainty" : chosen.show, deep = kind === "depth" && this.entry.depth;
    const source = deep ? depthPicture(this.entry) : thumbnail(this.entry);
    if (this.picture.getAttribute("src") !== source) this.picture.setAttribute("src", source);
    const over = !this.near || deep ? null : kind === "depth" ? "mask" : kind;
    const now = `${over} ${this.entry.verdict} ${this.entry.loss}`;
    if (this.drawn === now) return;
    this.drawn = now;
    drawOverlay(this.canvas, this.entry, over);
  }

  show(sample, isKept) {
    this.entry = sample;
    this.item.className = isKept ? "" : "discarded";
    const range = chosen.show === "depth" && sample.depth ? sample.depth.map((value) => value.toPrecision(3)).join(" to ") : "";
    const words = { right: "right", wrong: "wrong", corrected: `${percent(sample.loss ?? 0)} wrong` }[sample.verdict] ?? "";
    this.fact.textContent = [range, words, isKept ? "" : "discarded"].filter(Boolean).join(", ");
    this.right.setAttribute("aria-pressed", String(sample.verdict === "right"));
    this.wrong.setAttribute("aria-pressed", String(sample.verdict === "wrong"));
    this.correct.classList.toggle("done", sample.verdict === "corrected");
    this.draw();
  }
}
