// Twelve masks suspected of the same confusion.

import { tell } from "./api.js";
import { element, fill } from "./elements.js";
import { nameOf, Sight } from "./prefetch.js";

const KEYS = "qwerasdfzxcv";
const AHEAD = 2 * KEYS.length;

const at = (id) => document.getElementById(id);

/** The view of a screen of masks; `toggled(index, event)` is called for each, `changed()` when pictures have come. */
export class Grid {
  /** What is on the screen: {label, guess, sights, marked}; null for nothing. */
  screen = null;
  /** Whether there was nothing to put on the screen when last asked. */
  isEmpty = false;

  #names;
  #project;
  #answered;
  #changed;
  #toggled;
  #next = [];
  #pair = {};
  #turn = 0;

  constructor(project, classes, { answered, toggled, changed }) {
    this.#project = project;
    this.#names = new Map(classes.map((kind) => [kind.id, kind.name]));
    this.#answered = answered;
    this.#toggled = toggled;
    this.#changed = changed;
  }

  /** Masks held for this view. */
  get masks() {
    return [...(this.screen?.sights ?? []), ...this.#next].map((sight) => sight.question);
  }

  /** Whether every mask can be seen, or is known not to be. */
  get isWhole() {
    return this.screen !== null && this.screen.sights.every((sight) => sight.small || sight.fault);
  }

  /** A pair of classes as words. */
  words({ label, guess }) {
    return `${this.#named(label)} → ${this.#named(guess)}`;
  }

  /** Put masks of a pair on the screen; of the commonest if none is named. */
  async open(pair = {}) {
    const turn = (this.#turn += 1);
    this.#pair = pair;
    this.#next = [];
    this.screen = null;
    this.isEmpty = false;
    await this.#get();
    if (turn !== this.#turn) return;
    this.#turnOver();
    this.#changed();
  }

  /** The next masks of the same pair, or of the commonest other one. */
  async next() {
    this.screen = null;
    this.#turnOver();
    if (this.screen === null) await this.open();
    else this.#get().catch(() => {}); // the page's own requests say when the backend is away
  }

  /** Show a screen again that was answered. */
  restore(screen) {
    this.#turn += 1;
    const same = screen.label === this.#pair.label && screen.guess === this.#pair.guess;
    this.#next = same ? [...(this.screen?.sights ?? []), ...this.#next] : [];
    this.#pair = { label: screen.label, guess: screen.guess };
    this.screen = screen;
    this.isEmpty = false;
  }

  /** Forget what is held; gives it, so that it can be given back. */
  clear() {
    const held = this.masks;
    this.#turn += 1;
    this.#next = [];
    this.screen = null;
    return held;
  }

  /** A mask was answered elsewhere. */
  forget(name) {
    this.#next = this.#next.filter((sight) => sight.name !== name);
    if (this.screen?.sights.some((sight) => sight.name === name)) {
      const sights = this.screen.sights.filter((sight) => sight.name !== name);
      this.screen = { ...this.screen, sights };
    }
  }

  /** The place of a key, or −1. */
  placeOf(key) {
    const place = key.length === 1 ? KEYS.indexOf(key) : -1;
    return place < (this.screen?.sights.length ?? 0) ? place : -1;
  }

  /** Mark a mask as not of the suspected class, or take that back. */
  toggle(place) {
    const { sights, marked } = this.screen;
    const name = sights[place].name;
    if (!marked.delete(name)) marked.add(name);
    if (marked.has(name)) sights[place].load(this.#changed); // it comes by itself next
    this.show();
  }

  /** Mark all; take all marks back if all are marked. */
  toggleAll() {
    const { sights, marked } = this.screen;
    if (marked.size === sights.length) marked.clear();
    else sights.forEach((sight) => marked.add(sight.name));
    sights[0].load(this.#changed);
    this.show();
  }

  /** The masks on the screen, parted by whether they are of the suspected class; one that nobody could see is not. */
  parted() {
    const isOdd = (sight) => !sight.small || this.screen.marked.has(sight.name);
    return { even: this.screen.sights.filter((sight) => !isOdd(sight)), odd: this.screen.sights.filter(isOdd) };
  }

  show() {
    if (!this.screen) return;
    const { label, guess, sights, marked } = this.screen;
    const likely = this.#named(guess);
    at("suspected").textContent = `All of these look like ${likely} (now ${this.#named(label)}).`;
    const tiles = at("tiles");
    if (tiles.dataset.names !== sights.map((sight) => sight.name).join("\n")) {
      tiles.dataset.names = sights.map((sight) => sight.name).join("\n");
      fill(tiles, ...sights.map((_, place) => this.#tile(place)));
    }
    sights.forEach((sight, place) => {
      const tile = tiles.children[place];
      const isOdd = marked.has(sight.name);
      tile.setAttribute("aria-pressed", isOdd);
      tile.setAttribute("aria-label", `${KEYS[place]}: ${isOdd ? "not " : ""}${likely}`);
      const seen = tile.querySelector(".seen");
      if (sight.small) {
        if (!seen.contains(sight.small)) fill(seen, sight.small);
      } else {
        fill(seen, element("span", { class: "quiet" }, sight.fault || "on its way…"));
      }
    });
    const even = this.parted().even.length;
    const rest = even === sights.length ? `All ${even} are ${likely}` : `The other ${even} are ${likely}`;
    fill(at("finish"), element("kbd", {}, "Space"), even ? ` ${rest}` : " None is: ask one by one");
  }

  #tile(place) {
    const cap = element("kbd", { "aria-hidden": "true" }, KEYS[place]);
    const not = element("span", { class: "not", "aria-hidden": "true" }, "not");
    const tile = element("button", { type: "button", "aria-keyshortcuts": KEYS[place] }, element("span", { class: "seen" }), cap, not);
    tile.addEventListener("click", (event) => this.#toggled(place, event));
    return tile;
  }

  #turnOver() {
    const sights = this.#next.splice(0, KEYS.length);
    this.isEmpty = sights.length === 0;
    this.screen = sights.length ? { ...this.#pair, sights, marked: new Set() } : null;
  }

  /** Hold more masks of the pair, and get their pictures. */
  async #get() {
    const turn = this.#turn;
    const reply = await tell("POST", `projects/${this.#project}/review/grid`, { ...this.#pair, count: AHEAD });
    if (turn !== this.#turn) return;
    this.#pair = { label: reply.label, guess: reply.guess };
    const known = new Map(this.#next.map((sight) => [sight.name, sight]));
    const shown = new Set(this.screen?.sights.map((sight) => sight.name));
    this.#next = reply.questions
      .filter((question) => !shown.has(nameOf(question)) && !this.#answered(nameOf(question)))
      .map((question) => known.get(nameOf(question)) ?? new Sight(question));
    for (const sight of this.#next) sight.loadSmall(this.#changed);
  }

  #named(id) {
    return id === null ? "no label" : (this.#names.get(id) ?? "?");
  }
}
