// Lists of names that are edited in a dialog: classes, keypoints. Another tab may edit the same list
// meanwhile; what was typed here then stays, and the person decides.

import { send } from "./api.js";
import { el } from "./dom.js";
import { reload, store } from "./store.js";

// kind: "classes" or "keypoints"; `fill` shows the list of the project, `read` gives what is
// typed, and `before` what is sent of the list that it was made from.
export function editList(kind, title, parts, { fill, read, before: sent = (list) => list }) {
  const dialog = document.querySelector("#keys");
  const problem = el("p", { class: "alarm", role: "alert" });
  const before = { list: null };
  const open = () => {
    before.list = store.project[kind];
    newer.hidden = true;
    problem.textContent = "";
    fill();
  };
  const save = async () => {
    try {
      await send("PUT", `/api/${kind}`, { ...read(), before: sent(before.list) });
      await reload();
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      if (error.status !== 409) return;
      await reload().catch(() => {}); // it is said in the banner
      newer.hidden = JSON.stringify(store.project[kind]) === JSON.stringify(before.list);
      newer.list = store.project[kind]; // what the person is told of
    }
  };
  const over = () => {
    before.list = newer.list;
    newer.hidden = true;
    return save();
  };
  const newer = el("div", { class: "pair", hidden: true },
    el("button", { type: "button", onclick: open }, "Load the newer list"),
    el("button", { type: "button", onclick: over }, "Save mine over it"));
  open();
  dialog.replaceChildren(el("h2", { id: "keys-title" }, title), ...parts, problem,
    el("div", { class: "pair" }, el("button", { type: "button", class: "main", onclick: save }, "Save"),
      el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
    newer); // last, so that a double click on Save does not hit it
  dialog.showModal();
}
