// Twelve masks suspected of the same confusion.

import { tell } from "./api.js";
import { at, element, fill } from "./elements.js";
import { bare, nameOf, Sight } from "./prefetch.js";

const KEYS = "qwerasdfzxcv";
const AHEAD = 2 * KEYS.length;
const MOST = 100;

/**
 * The view of a screen of masks.
 *
 * `answered(name)` says whether a mask has an answer already, `apart()` gives the masks that are asked one by one,
 * `waiting()` says how many answers the backend has not heard; `toggled(index, event)` is called for each tile that is
 * clicked, `changed()` when pictures have come.
 */
export class Grid {
  /** What is on the screen: {label, guess, sights, marked}; null for nothing. */
  screen = null;
  /** Whether there was nothing to put on the screen when last asked. */
  isEmpty = false;

  #names;
  #project;
  #told;
  #changed;
  #next = [];
  #pair = {};
  #turn = 0;

  constructor(project, classes, told) {
    this.#project = project;
    this.#names = new Map(classes.map((kind) => [kind.id, kind.name]));
    this.#told = told;
    this.#changed = told.changed;
  }

  /** Masks held for this view. */
  get masks() {
    return [...(this.screen?.sights ?? []), ...this.#next].map((sight) => sight.question);
  }

  /** Whether every mask can be seen, or is known not to be. */
  get isWhole() {
    return this.screen !== null && this.screen.sights.every((sight) => sight.small || sight.fault || this.#isGone(sight));
  }

  /** A pair of classes as words. */
  words({ label, guess }) {
    return `${this.#named(label)} → ${this.#named(guess)}`;
  }

  /** Put masks of a pair on the screen; of the commonest if none is named. */
  async open(pair = {}) {
    this.clear();
    const turn = this.#turn;
    this.#pair = pair;
    this.isEmpty = false;
    await this.#get();
    if (turn !== this.#turn) return;
    this.#turnOver();
    this.#changed();
  }

  /** The next masks of the same pair, if they are here already; `fill` brings more. */
  turn() {
    this.#leave(this.screen?.sights ?? []);
    this.#turnOver();
    this.isEmpty = false;
  }

  /** Get the masks after these, or others where there is no screen: of the same pair first. */
  async fill() {
    if (this.screen) return this.#get();
    if (this.#pair.guess !== undefined) await this.open(this.#pair);
    if (!this.screen) await this.open();
  }

  /** Show a screen again that was answered. */
  restore(screen) {
    this.#turn += 1;
    screen.sights.forEach((sight) => {
      sight.odd = false;
      sight.loadSmall(this.#changed);
    });
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
    this.#leave([...(this.screen?.sights ?? []), ...this.#next]);
    this.#next = [];
    this.screen = null;
    return held;
  }

  /** A mask was answered elsewhere, or is somebody else's now. Its place stays, so that the other keys mean the same. */
  forget(name) {
    this.#next = this.#next.filter((sight) => sight.name !== name);
    if (!this.screen?.sights.some((sight) => sight.name === name)) return;
    this.screen.gone.add(name);
    if (this.screen.sights.every((sight) => this.#isGone(sight))) this.screen = null;
  }

  /** The place of a key, or −1. */
  placeOf(key) {
    const place = key.length === 1 ? KEYS.indexOf(key) : -1;
    return place < (this.screen?.sights.length ?? 0) ? place : -1;
  }

  /** Mark a mask as not of the suspected class, or take that back. */
  toggle(place) {
    if (!this.isWhole || this.#isGone(this.screen.sights[place])) return;
    const { sights, marked } = this.screen;
    const name = sights[place].name;
    if (!marked.delete(name)) marked.add(name);
    if (marked.has(name)) sights[place].load(this.#changed); // it comes by itself next
    this.show();
  }

  /** Mark all; take all marks back if all are marked. */
  toggleAll() {
    if (!this.isWhole) return;
    const { marked } = this.screen;
    const sights = this.screen.sights.filter((sight) => !this.#isGone(sight));
    if (marked.size === sights.length) marked.clear();
    else sights.forEach((sight) => marked.add(sight.name));
    sights[0].load(this.#changed);
    this.show();
  }

  /** The masks on the screen, parted by whether they are of the suspected class; one that nobody could see is not. */
  parted() {
    const isOdd = (sight) => !sight.small || this.screen.marked.has(sight.name);
    const sights = this.screen.sights.filter((sight) => !this.#isGone(sight));
    return { even: sights.filter((sight) => !isOdd(sight)), odd: sights.filter(isOdd) };
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
      tile.disabled = this.#isGone(sight);
      const seen = tile.querySelector(".seen");
      if (tile.disabled) {
        fill(seen, element("span", { class: "quiet" }, "answered, or asked of somebody else"));
      } else if (sight.small) {
        if (!seen.contains(sight.small)) fill(seen, sight.small);
      } else {
        fill(seen, element("span", { class: "quiet" }, sight.fault || "on its way…"));
      }
    });
    const { even: { length: even }, odd } = this.parted(); // prettier-ignore
    const rest = odd.length === 0 ? `All ${even} are ${likely}` : `The other ${even} are ${likely}`;
    fill(at("finish"), element("kbd", {}, "Space"), even ? ` ${rest}` : " None is: ask one by one");
  }

  #tile(place) {
    const cap = element("kbd", { "aria-hidden": "true" }, KEYS[place]);
    const not = element("span", { class: "not", "aria-hidden": "true" }, "not");
    const tile = element("button", { type: "button", "aria-keyshortcuts": KEYS[place] }, element("span", { class: "seen" }), cap, not);
    tile.addEventListener("click", (event) => this.#told.toggled(place, event));
    return tile;
  }

  #turnOver() {
    const apart = new Set(this.#told.apart().map(nameOf));
    const asked = this.#next.filter((sight) => !this.#told.answered(sight.name) && !apart.has(sight.name));
    const sights = asked.splice(0, KEYS.length);
    this.#next = asked;
    this.isEmpty = sights.length === 0;
    this.screen = sights.length ? { ...this.#pair, sights, marked: new Set(), gone: new Set() } : null;
  }

  #isGone(sight) {
    return this.screen.gone.has(sight.name);
  }

  /** Nobody looks at these here any more; odd ones are looked at one by one. */
  #leave(sights) {
    for (const sight of sights) if (!sight.odd) sight.drop();
  }

  /** Hold more masks of the pair, and get their pictures. */
  async #get() {
    const turn = this.#turn;
    const held = this.#told.apart().slice(0, MOST).map(bare);
    const count = Math.min(AHEAD + this.#told.waiting(), MOST);
    const reply = await tell("POST", `projects/${this.#project}/review/grid`, { ...this.#pair, count, held });
    if (turn !== this.#turn) return;
    this.#pair = reply.guess === null ? {} : { label: reply.label, guess: reply.guess };
    const known = new Map(this.#next.map((sight) => [sight.name, sight]));
    const shown = new Set(this.screen?.sights.map((sight) => sight.name));
    this.#next = reply.questions
      .filter((question) => !shown.has(nameOf(question)) && !this.#told.answered(nameOf(question)))
      .map((question) => known.get(nameOf(question)) ?? new Sight(question));
    for (const sight of this.#next) sight.loadSmall(this.#changed);
  }

  #named(id) {
    return id === null ? "no label" : (this.#names.get(id) ?? "?");
  }
}
