// One mask: its picture, its likely classes, all classes.

import { at, element, fill } from "./elements.js";

const CHOICES = 4;

/** A class with its colour. */
export function chip(kind) {
  const made = element("span", { class: "chip" });
  made.style.background = kind.colour;
  return made;
}

/** The view of one mask; `choose(label, event)` is called for each button of a class. */
export class Single {
  #classes;
  #choices;
  #labels = [];
  #shown = null;

  constructor(classes, choose) {
    this.#classes = new Map(classes.map((kind) => [kind.id, kind]));
    this.#choices = Array.from({ length: CHOICES }, (_, index) => {
      const made = element("button", { type: "button", "aria-keyshortcuts": index + 1 });
      made.addEventListener("click", (event) => choose(this.#labels[index], event));
      return made;
    });
    fill(at("choices"), ...this.#choices);
    const all = classes.map((kind) => {
      const cap = kind.key ? element("kbd", {}, kind.key) : "";
      const made = element("button", { type: "button", title: kind.name, "aria-keyshortcuts": kind.key }, chip(kind), cap);
      made.append(element("span", { class: "name" }, kind.name));
      made.addEventListener("click", (event) => choose(kind.id, event));
      return made;
    });
    fill(at("palette"), ...all);
  }

  /** Show a mask, or that the next one is on its way (null). */
  show(sight) {
    if (sight && sight !== this.#shown) {
      this.#ask(sight.question);
      scrollTo(0, 0); // on a phone the classes stand below the picture
    }
    this.#shown = sight;
    if (!sight?.crop) fill(at("crop"), element("p", {}, sight?.fault || "The picture is on its way…"));
    else if (!at("crop").contains(sight.crop)) fill(at("crop"), sight.crop);
    if (!sight?.whole) fill(at("whole"));
    else if (!at("whole").contains(sight.whole)) fill(at("whole"), sight.whole);
  }

  /** What the mask on the screen is called now, as words. */
  get words() {
    return at("now").textContent;
  }

  /** The class of a key: 1 to 4 for what is likely, a letter for any; undefined for no class. */
  labelOf(key) {
    const place = "1234".indexOf(key);
    if (place >= 0) return this.#labels[place];
    return [...this.#classes.values()].find((kind) => kind.key && kind.key === key)?.id;
  }

  #ask({ label, guesses, why }) {
    const held = label !== null;
    this.#labels = [...(held ? [label] : []), ...guesses].filter((id) => this.#classes.has(id)).slice(0, CHOICES);
    at("now").textContent = held ? `labelled ${this.#classes.get(label)?.name} now` : "no label yet";
    at("why").textContent = why && ` · ${why}`;
    this.#choices.forEach((button, index) => {
      const kind = this.#classes.get(this.#labels[index]);
      button.hidden = !kind;
      if (!kind) return;
      const now = held && index === 0 ? element("small", {}, "now") : "";
      fill(button, chip(kind), element("kbd", {}, index + 1), element("span", { class: "name" }, kind.name), now);
    });
  }
}
