// Pick: the images of the set, and candidates for it.

import { getJson, image, request, send, thumbnail } from "./api.js";
import { el, icon, plural, redraw, single } from "./dom.js";
import { isLabelled, store, subscribe } from "./store.js";

const POOL = 256;
const asked = { order: "typical", pool: POOL, found: null };

export function pickView(view) {
  const problem = el("p", { class: "alarm", role: "alert" });
  const set = el("ul", { class: "grid" }), rest = el("ul", { class: "grid" });
  const facts = el("p", { class: "lead" });
  const act = async (work) => {
    problem.textContent = "";
    try {
      await work();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const showSet = () => {
    const { images } = store.project;
    facts.textContent = `${plural(images.length, "image")} to label. Take out what is broken or twice the same; a dozen different ones are a good start.`;
    redraw(set, ...images.map((entry) => {
      const done = isLabelled(entry);
      return el("li", {},
        el("a", { href: `#paint/${entry.stem}` }, el("img", { src: thumbnail(entry), alt: `Image ${entry.stem}`, loading: "lazy" })),
        el("span", { class: "under" }, el("b", {}, entry.stem),
          done ? el("span", { class: "ok" }, icon("check"), "labeled") :
            el("button", { type: "button", class: "small", title: "Take out of the set", "aria-label": `Take ${entry.stem} out of the set`, onclick: single(() => act(() => request("DELETE", image(entry.stem)))) }, icon("close"))),
        entry.psnr_db === null ? null : el("small", {}, `${entry.psnr_db.toFixed(1)} dB`));
    }));
  };
  const showCandidates = () => {
    if (!asked.found) return rest.replaceChildren(el("li", { class: "wait" }, "Drawing candidates"));
    redraw(rest, ...asked.found.map((index) => el("li", {},
      el("button", { type: "button", class: "picture", title: "Put into the set", "aria-label": `Put candidate ${index} into the set`, onclick: single(() => act(async () => {
        await send("POST", "/api/images", { indices: [index] });
        asked.found = asked.found.filter((other) => other !== index);
        showCandidates();
      })) }, el("img", { src: `/candidates/${index}`, alt: `Candidate ${index}`, loading: "lazy" }), icon("plus")))));
  };
  const ask = (change) => act(async () => {
    Object.assign(asked, change, { found: null });
    showCandidates();
    asked.found = await getJson(`/api/candidates?order=${asked.order}&pool=${asked.pool}`);
    showCandidates();
    buttons();
  });
  const choice = el("div", { class: "pair inline", role: "group", "aria-label": "Which candidates" });
  const buttons = () => redraw(choice,
    ...["typical", "farthest"].map((order) => el("button", { type: "button", "aria-pressed": String(asked.order === order), onclick: () => ask({ order }) }, order === "typical" ? "Typical first" : "Unlike the set first")),
    el("button", { type: "button", onclick: () => ask({ pool: asked.pool + POOL }) }, "Draw more"));
  view.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", {}, "Your images"), el("a", { class: "button main", href: "#paint" }, "Paint them")),
    facts, problem, set,
    ...(store.project.can_pick
      ? [el("div", { class: "heading" }, el("h2", {}, "More from the generator"), choice), el("p", { class: "lead" }, "A click puts a candidate into the set."), rest]
      : [el("p", { class: "lead" }, "These are photographs, or images made in another way; the studio draws no more of them.")])));
  showSet();
  buttons();
  if (store.project.can_pick) {
    if (asked.found) showCandidates();
    else ask({});
  }
  const unsubscribe = subscribe((what) => ["project", "saved"].includes(what) && showSet());
  return () => {
    unsubscribe();
    // Candidates that are not drawn yet would keep the browser's few connections from what is next.
    for (const img of rest.querySelectorAll("img")) if (!img.complete) img.removeAttribute("src");
  };
}
