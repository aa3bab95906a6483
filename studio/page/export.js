// Export: one button to a calibrated bundle, and how to serve it and train on it.

import { getJson, send } from "./api.js";
import { el, icon, plural, redraw } from "./dom.js";
import { isLabelled, store, subscribe } from "./store.js";

export function exportView(view) {
  const problem = el("p", { class: "alarm", role: "alert" }), body = el("div", {});
  const start = () => send("POST", "/api/export").then(() => (problem.textContent = "")).catch((error) => (problem.textContent = error.message));
  // What the reviews of Review prove, and a contact sheet of its samples.
  const sheet = el("div", {}), proved = el("section", { "aria-label": "Certificate" });
  const certify = () => send("POST", "/api/review/bundle").then(() => (problem.textContent = "")).catch((error) => (problem.textContent = error.message));
  const showReview = async () => {
    const { samples, bundle, counted } = await getJson("/api/review").catch(() => ({ samples: [] }));
    const parts = store.project.export.phase === "done" && bundle ? certificate(bundle, counted, certify) : [];
    redraw(proved, ...parts);
    const now = samples.length ? `/api/review/sheet?v=${samples[0].tag}-${Math.min(samples.length, 24)}` : "";
    if (sheet.dataset.shown === now) return;
    sheet.dataset.shown = now;
    sheet.replaceChildren(el("h2", {}, "Contact sheet"), ...(now
      ? [el("p", { class: "lead" }, "The first fresh samples of Review, above their labels."),
        el("a", { href: now, download: "contact-sheet.png", title: "Download" }, el("img", { class: "sheet", src: now, alt: "Contact sheet of fresh samples and their labels" }))]
      : [el("p", { class: "lead" }, "Draw samples in Review; the first of them make a contact sheet here.")]));
  };
  const show = () => {
    const { images, learn, formats } = store.project, run = store.project.export;
    const labelled = images.filter(isLabelled).length;
    const busy = ["training", "exporting"].includes(run.phase);
    const title = { none: "Write the bundle", training: "Training the ensemble with full settings", exporting: "Exporting and calibrating", done: "Write it again", failed: "Try again" }[run.phase];
    const steps = [
      step("training", "Train", "the ensemble of ten, from your labels", run),
      step("exporting", "Export", "one ONNX graph, compared with PyTorch, and calibrated on 4096 samples", run),
    ];
    const parts = [
      el("p", { class: "lead" }, `${plural(labelled, "labeled image")}${learn.missing.length ? `; no pixel of ${learn.missing.join(", ")} yet` : ""}. The button runs the same two commands that you could type, so that everything can be done again without the studio.`),
      el("ol", { class: "run" }, ...steps),
      el("button", { type: "button", class: "main", disabled: busy || !labelled, onclick: start }, title),
      run.lines.length ? el("pre", { class: "log", tabindex: "0", "aria-label": "What the commands say" }, run.lines.slice(-12).join("\n")) : null,
      ...(run.phase === "done" ? [
        el("h2", {}, "Serve it"), code(run.serve),
        el("h2", {}, "Train on it"), code(run.loop)] : []),
      el("h2", {}, "Your labels"),
      el("p", { class: "lead" }, "As files for another tool. The command training labels import reads them back into the project."),
      el("div", { class: "formats" }, ...formats.map((name) => labelled
        ? el("a", { class: "button", href: `/api/labels/${name}`, download: `labels-${name}.zip` }, name)
        : el("span", { class: "button", "aria-disabled": "true" }, name)))];
    redraw(body, ...parts.filter((part) => part !== null));
    const log = body.querySelector(".log");
    if (log) log.scrollTop = log.scrollHeight;
  };
  view.replaceChildren(el("div", { class: "page narrow" }, el("h1", {}, "To your training loop"), problem, body, proved, sheet));
  show();
  showReview();
  return subscribe((what) => {
    if (["export", "project", "saved"].includes(what)) show();
    if (["export", "review", "learn"].includes(what)) showReview();
  });
}

function step(phase, title, what, run) {
  const order = ["none", "training", "exporting", "done"];
  const past = run.phase === "done" || order.indexOf(run.phase) > order.indexOf(phase);
  const state = run.phase === phase ? "now" : past && run.phase !== "failed" ? "past" : "";
  const command = run.commands[phase === "training" ? 0 : 1];
  return el("li", { class: state }, el("b", {}, state === "past" ? icon("check") : null, title), el("span", {}, what), el("code", {}, command));
}

// The bundle's certificate, or how it gets one.
function certificate(bundle, counted, certify) {
  const has = bundle.reviewed === null ? "" : `The bundle has a certificate of ${plural(bundle.reviewed, "review")}. `;
  const words = bundle.current
    ? `${has}It says what your reviews prove: servers and data cards state it for the thresholds that it is about.`
    : bundle.fits
      ? `${has}What your ${plural(counted, "review")} prove can be a part of the bundle; servers and data cards then state it. Its samples do not change.`
      : `${has}Review samples of this bundle's ensemble; what the reviews prove can then be a part of it.`;
  return [el("h2", {}, "Certificate"), el("p", { class: "lead" }, words),
    bundle.fits && !bundle.current ? el("button", { type: "button", onclick: certify }, "Put the certificate into the bundle") : null,
    bundle.fits ? null : el("a", { class: "button", href: "#review" }, "Review samples")].filter((part) => part !== null);
}

function code(text) {
  const button = el("button", { type: "button", class: "plain", onclick: async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } }, "Copy");
  return el("div", { class: "code" }, el("pre", { tabindex: "0" }, text), button);
}
