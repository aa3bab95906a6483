// Classes: the palette beside the canvas, and the page that names them first.

import { send } from "./api.js";
import { el, hex, icon, single } from "./dom.js";
import { editList } from "./lists.js";
import { reload, store, subscribe } from "./store.js";

const COLORS = [0x30343f, 0xf2b48c, 0x8a5a2b, 0x35a7ff, 0xff5964, 0x6bd425, 0xffe066, 0xc77dff, 0x2ec4b6,
  0xff9f1c, 0xe0e0e0, 0x7209b7, 0x118ab2, 0xef476f, 0x9ef01a];

const FIRST = "background\n"; // what the list begins with

export function defineClasses(view) {
  const names = el("textarea", { id: "names", rows: 8, spellcheck: "false" });
  names.value = FIRST;
  const other = el("div", { class: "note warn", role: "status", hidden: true });
  const problem = el("p", { class: "alarm", role: "alert" });
  const typed = () => names.value.split("\n").map((name) => name.trim()).filter(Boolean);
  const make = async () => {
    try {
      const cards = typed().map((name, i) => ({ name, color: COLORS[i % COLORS.length] }));
      await send("PUT", "/api/classes", { classes: cards, before: [] });
      await reload(); // which is told
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  view.className = "define";
  view.replaceChildren(el("section", { class: "card" },
    el("h1", {}, "What do you want to tell apart?"),
    el("p", {}, "One class per line; every pixel gets exactly one. The first is usually the background. You can add, rename and recolor classes later."),
    el("label", { for: "names" }, "Classes"), names, problem, other,
    el("button", { type: "button", class: "main", onclick: make }, "Start painting")));
  names.focus();
  // Here or in another tab, where nothing that is typed here is taken away.
  const goOn = () => dispatchEvent(new HashChangeEvent("hashchange"));
  return subscribe((what) => {
    const known = store.project.classes.map((card) => card.name);
    if (what !== "project" || !known.length) return;
    if (names.value === FIRST || typed().join("\n") === known.join("\n")) return goOn();
    other.hidden = false;
    other.replaceChildren(`Another tab has named the classes: ${known.join(", ")}. What you have typed is not saved.`,
      el("button", { type: "button", class: "wide", onclick: goOn }, "Paint with those"));
  });
}

export function classesPanel(session) {
  const { classes } = store.project, { settings } = session;
  const erasing = settings.tool === "eraser";
  const row = (id, name, color, key) =>
    el("li", {},
      el("button", { type: "button", class: "class", "aria-pressed": String(!erasing && settings.class === id), "data-focus": `class${id}`, onclick: () => session.useClass(id) },
        swatch(color), el("span", {}, name), key === null ? null : el("kbd", {}, key)));
  const list = el("ul", { class: "classes" },
    ...classes.map((card, id) => row(id, card.name, card.color, id < 9 ? String(id + 1) : null)),
    row(-1, "ignore", null, "0"));
  return [el("section", { class: "panel" },
    el("div", { class: "heading" }, el("h2", {}, "Classes"),
      el("button", { type: "button", class: "plain", onclick: () => editClasses() }, "Edit")),
    list,
    el("label", { class: "check" }, el("input", { type: "checkbox", checked: settings.protect, "data-focus": "protect",
      onchange: (event) => { settings.protect = event.target.checked; event.target.blur(); } }),
      el("span", {}, "Keep what is painted"), el("kbd", {}, "L")))];
}

function swatch(color) {
  const made = el("i", { class: color === null ? "swatch none" : "swatch" });
  if (color !== null) made.style.background = hex(color);
  return made;
}

function editClasses() {
  let rows = [];
  const list = el("ul", { class: "edit" });
  const show = () => list.replaceChildren(...rows.map((card, id) => el("li", {},
    el("input", { type: "color", value: hex(card.color), "aria-label": `Color of ${card.name}`, oninput: (event) => (card.color = parseInt(event.target.value.slice(1), 16)) }),
    el("input", { type: "text", value: card.name, "aria-label": `Name of class ${id + 1}`, maxlength: "80", oninput: (event) => (card.name = event.target.value.trim()) }),
    id === rows.length - 1 && id > 0 ? el("button", { type: "button", class: "small", "aria-label": `Remove ${card.name}`, onclick: single(() => { rows.pop(); show(); }) }, icon("close")) : null)));
  const add = () => {
    rows.push({ name: `class ${rows.length + 1}`, color: COLORS[rows.length % COLORS.length], key: null });
    show();
  };
  editList("classes", "Classes", [list, el("button", { type: "button", onclick: add }, icon("plus"), " Add a class")], {
    fill: () => {
      rows = store.project.classes.map(({ name, color, keys }) => ({ name, color, key: keys.at(-1) }));
      show();
    },
    read: () => ({ classes: rows }),
    before: (list) => list.map(({ name, color }) => ({ name, color })),
  });
}
