// The masks this person holds: the one on the screen, and the next ones with their pictures decoded.

import { refusal, tell } from "./api.js";

const AHEAD = 8;
const MOST = 100;
const LEASE_MS = 280_000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** What the backend knows a mask by. */
export function bare({ round, task, region }) {
  return { round, task, region };
}

/** The same for the same mask. */
export function nameOf(mask) {
  return `${mask.round} ${mask.task} ${mask.region}`;
}

/** A question and its pictures. */
export class Sight {
  /** The mask in its surroundings, the same for a screen of many, and the whole image; null until they are there. */
  crop = null;
  small = null;
  whole = null;
  /** Why its picture is not there; "" if it is, or is on its way. */
  fault = "";
  /** It was asked for here, by undo or from the grid, and comes before what the backend would ask. */
  pinned = false;
  /** It stood out on a screen of many, and is asked by itself. */
  odd = false;

  #loading = false;
  #loadingSmall = false;
  #wanted = true;

  constructor(question) {
    this.question = question;
    this.name = nameOf(question);
  }

  /** Get the pictures for the mask alone, until they are there or nobody wants them; `changed` is called for each. */
  async load(changed) {
    this.#wanted = true;
    if (this.#loading || (this.crop && this.whole)) return;
    this.#loading = true;
    this.crop ??= await this.#picture(this.question.picture, "The mask, outlined, in its surroundings", changed);
    changed();
    this.whole ??= await this.#picture(this.question.whole, "The whole image, with the mask outlined", changed);
    this.#loading = false;
    changed();
  }

  /** Get the picture for a screen of many. */
  async loadSmall(changed) {
    this.#wanted = true;
    if (this.#loadingSmall || this.small) return;
    this.#loadingSmall = true;
    this.small = await this.#picture(this.question.small, "", changed);
    this.#loadingSmall = false;
    changed();
  }

  /** Nobody looks at it now: a picture that cannot be had is not asked for again. */
  drop() {
    this.#wanted = false;
  }

  async #picture(address, text, changed) {
    for (let pause = FIRST_PAUSE_MS; this.#wanted; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      const image = new Image();
      image.src = address;
      image.alt = text;
      try {
        await image.decode();
        this.fault = "";
        return image;
      } catch {
        this.fault = await why(address);
        changed();
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
    return null;
  }
}

/** Why a picture cannot be had. */
async function why(address) {
  try {
    const reply = await fetch(address);
    return reply.ok ? "" : (await refusal(reply)).message;
  } catch {
    return "The backend does not answer.";
  }
}

/**
 * The masks to answer one by one.
 *
 * `answered(name)` says whether a mask has an answer already, `waiting()` how many answers the backend has not
 * heard; `elsewhere()` gives the masks that another view holds, `lost(names)` is called with those of them that are not held
 * any more, `changed()` when a picture has come or masks have.
 */
export class Queue {
  /** The mask on the screen, or null. */
  current = null;
  /** Masks that are still asked of anybody. */
  left = null;

  #next = [];
  #project;
  #told;
  #renewed = -Infinity;
  #asking = null;

  constructor(project, told) {
    this.#project = project;
    this.#told = told;
  }

  /** Whether somebody else may have been given these masks meanwhile. */
  get expired() {
    return performance.now() - this.#renewed > LEASE_MS;
  }

  /** What is held has been given back. */
  expire() {
    this.#renewed = -Infinity;
  }

  get length() {
    return this.#next.length + (this.current ? 1 : 0);
  }

  get isShort() {
    return this.#next.length < AHEAD;
  }

  /** Every mask held for this view. */
  get masks() {
    return [this.current, ...this.#next].filter(Boolean).map((sight) => sight.question);
  }

  /** The masks held that were found odd on a screen of many. */
  get odd() {
    return [this.current, ...this.#next].filter((sight) => sight?.odd).map((sight) => sight.question);
  }

  /** Put the next mask in place of the current one. */
  advance() {
    this.current?.drop();
    this.current = null;
    this.settle();
    this.#loadAhead();
  }

  /**
   * See to it that a mask whose picture is there is on the screen; one without comes only when there is no other. Masks
   * that were found odd on a screen of many come in their order, and are waited for as long as their pictures may come.
   */
  settle() {
    if (this.current?.crop) return;
    const ready = this.#next.findIndex((sight) => sight.crop || (sight.odd && !sight.fault));
    const index = ready < 0 && !this.current ? this.#next.findIndex((sight) => sight.fault) : ready;
    if (index < 0 || (index === ready && !this.#next[index].crop)) return;
    const [taken] = this.#next.splice(index, 1);
    if (this.current) this.#next.push(this.current);
    this.current = taken;
  }

  /** Ask these first; the mask on the screen comes right after them. */
  putFirst(sights) {
    const names = new Set(sights.map((sight) => sight.name));
    const rest = [this.current, ...this.#next].filter((sight) => sight && !names.has(sight.name));
    sights.forEach((sight) => (sight.pinned = true));
    this.current = null;
    this.#next = [...sights, ...rest];
    this.settle();
    this.#loadAhead();
  }

  /** A mask that is asked no more; its place on the screen is empty until `settle`. */
  forget(name) {
    const isIt = (sight) => sight?.name === name;
    [this.current, ...this.#next].filter(isIt).forEach((sight) => sight.drop());
    if (isIt(this.current)) this.current = null;
    this.#next = this.#next.filter((sight) => !isIt(sight));
  }

  /** Renew what is held and get what is missing. One request at a time. */
  async renew() {
    if (this.#asking) return this.#asking;
    this.#asking = this.#ask().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #ask() {
    const waiting = this.#told.waiting(); // the backend still counts their masks as held
    const count = Math.min(Math.max(AHEAD + 1, this.length) + waiting, MOST);
    const known = new Set(this.masks.map(nameOf));
    const held = this.#told.elsewhere().slice(0, MOST).map(bare);
    const { questions, left, lost } = await tell("POST", `projects/${this.#project}/review/lease`, { count, held });
    this.#renewed = performance.now();
    this.left = left;
    const given = new Map(questions.map((question) => [nameOf(question), question]));
    const round = Math.max(-1, ...questions.map((question) => question.round));
    this.#merge(given, known, round, waiting === 0);
    this.#told.lost(lost.map(nameOf));
    this.#loadAhead();
    this.#told.changed();
  }

  #merge(given, known, round, settled) {
    const isOver = (sight) => round > sight.question.round;
    // What came here while the reply was on its way cannot stand in it; what was taken back may not, until that is heard.
    const isDue = (sight) => given.has(sight.name) || !known.has(sight.name) || (sight.pinned && !settled);
    const stays = (sight) => !isOver(sight) && isDue(sight);
    const before = this.current;
    if (this.current && !stays(this.current)) this.current = null; // somebody answered it elsewhere, or has it now
    const old = new Map(this.#next.map((sight) => [sight.name, sight]));
    const kept = this.#next.filter(stays);
    const first = kept.filter((sight) => sight.pinned || !given.has(sight.name));
    const elsewhere = this.#told.elsewhere().map(nameOf);
    const taken = new Set([...first.map((sight) => sight.name), this.current?.name, ...elsewhere]);
    const rest = [...given.keys()].filter((name) => !taken.has(name) && !this.#told.answered(name));
    this.#next = [...first, ...rest.map((name) => old.get(name) ?? new Sight(given.get(name)))];
    const held = new Set(this.#next);
    for (const sight of [before, ...old.values()]) if (sight !== this.current && !held.has(sight)) sight?.drop();
  }

  #loadAhead() {
    for (const sight of [this.current, ...this.#next.slice(0, AHEAD)]) sight?.load(this.#told.changed);
  }
}
