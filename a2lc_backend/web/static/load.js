// What a part of the page has to fetch: once for what it hangs on, and again when that failed.

import { Unreachable } from "./api.js";
import { button } from "./controls.js";
import { element } from "./elements.js";

const FIRST_RETRY_MS = 2000;
const LONGEST_RETRY_MS = 60_000;

/** Fetches something when its key changes. A failure is told, and tried again: by itself, ever later, or on a press. */
export class Load {
  #key = null;
  #job = null;
  #turn = 0;
  #timer = 0;
  #wait = 0;
  #running = null;

  /** Fetch unless this key was asked for last; `show` gets what `get` found, `fail` why not, in words. Ends with either. */
  want(key, get, show, fail) {
    if (key !== this.#key) {
      this.#key = key;
      this.#wait = 0;
      this.#job = { get, show, fail };
      this.again();
    }
    return this.#running;
  }

  /** Fetch now. */
  again = () => {
    this.#running = this.#run();
    return this.#running;
  };

  async #run() {
    clearTimeout(this.#timer);
    const mine = ++this.#turn;
    const { get, show, fail } = this.#job;
    let found;
    try {
      found = await get();
    } catch (error) {
      if (mine !== this.#turn) return;
      this.#wait = Math.min(Math.max(2 * this.#wait, FIRST_RETRY_MS), LONGEST_RETRY_MS);
      this.#timer = setTimeout(this.again, this.#wait);
      fail(words(error));
      return;
    }
    if (mine === this.#turn) show(found); // else something else was wanted meanwhile
  }

  /** Nobody wants it any more. */
  stop() {
    clearTimeout(this.#timer);
    this.#turn += 1;
    this.#key = null;
  }
}

/** Why something could not be fetched. */
export function words(error) {
  return error instanceof Unreachable ? "The backend does not answer." : error.message;
}

/** What went wrong with loading something, and a button that tries again. */
export function failure(id, text, again) {
  const line = element("p", { class: "bad", role: "alert" }, text);
  return element("div", { class: "failure" }, line, button(id, "Try again", again));
}
