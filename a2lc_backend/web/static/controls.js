// Buttons, questions, and a word on what was done.

import { element, fill } from "./elements.js";

/** A button that cannot be pressed again while its work is being done. */
export function button(id, text, work, disabled = false, kind = "") {
  const made = element("button", { id, type: "button", class: kind }, text);
  made.disabled = disabled;
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await work();
    } finally {
      made.disabled = disabled;
    }
  });
  return made;
}

/** Ask before something that cannot be taken back easily. */
export function sure(title, text, yes) {
  const dialog = document.getElementById("question");
  document.getElementById("question-title").textContent = title;
  document.getElementById("question-text").textContent = text;
  dialog.querySelector("button.primary").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let fading = 0;

/** Say what was done at the foot of the page, with a way back if there is one. */
export function told(text, undo) {
  const place = document.getElementById("told");
  clearTimeout(fading);
  const close = button("told-close", "Close", () => fill(place));
  const back = undo ? button("told-undo", "Undo", () => undo()) : "";
  fill(place, element("p", {}, text), back, close);
  if (!undo) fading = setTimeout(() => fill(place), 8000);
}

/** A dialog of its own, with a heading. */
export function dialogOf(id) {
  const title = element("h2", { id: `${id}-title` });
  const body = element("div", { class: "body" });
  const made = element("dialog", { id, class: "wide", "aria-labelledby": `${id}-title` }, title, body);
  document.body.append(made);
  return { dialog: made, title, body };
}
