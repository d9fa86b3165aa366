// Buttons, questions, and a word on what was done.

import { at, element, fill } from "./elements.js";

/** A button that cannot be pressed again while its work is being done. */
export function button(id, text, work, disabled = false, kind = "") {
  const made = element("button", { id, type: "button", class: kind }, text);
  made.disabled = disabled;
  made.addEventListener("click", async () => {
    const held = document.activeElement === made;
    made.disabled = true;
    try {
      await work();
    } finally {
      made.disabled = disabled;
      // A disabled button loses the focus; by now another one may stand in its place.
      if (held && document.activeElement === document.body) (made.isConnected ? made : at(id))?.focus();
    }
  });
  return made;
}

let questions = 0;

/** Ask before something that cannot be taken back easily. */
export function sure(title, text, yes) {
  return asked(title, text, element("button", { value: "no" }, "No, go back"), element("button", { value: "yes", class: "primary" }, yes));
}

/** Say why something was not done. */
export function refused(error) {
  return asked("That was not done", error.message, element("button", { value: "yes", class: "primary" }, "I see"));
}

/** A dialog of its own for each question, so that no answer is taken for another's; whether it was answered with yes. */
function asked(title, text, ...buttons) {
  const id = `question-${++questions}`;
  const dialog = element(
    "dialog",
    { class: "question", "aria-labelledby": id },
    element("form", { method: "dialog" }, element("h2", { id }, title), element("p", {}, text), element("menu", {}, ...buttons)),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

let fading = 0;

/** Say what was done at the foot of the page, with a way back if there is one. */
export function told(text, undo) {
  const place = at("told");
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
