// Answers on their way. Each is written down in the browser before it is sent, and crossed out when the backend has it.
//
// Every entry has a key of its own in localStorage, so that two tabs never write the same one; the backend knows an
// answer that is sent twice by its id. The Web Lock only saves them the work of sending the same answers both.

import { Refused, tell } from "./api.js";

const MOST = 100;
const PATIENCE_MS = 20_000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;

/** A random UUID; `crypto.randomUUID` is missing where a page comes by plain HTTP. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/**
 * Answers of one person in one project that the backend does not have yet.
 *
 * `told` is called back: `changed()` when the count or the trouble is another, `refused(items)` with {answer, why} of each
 * that the backend will never take, `over(mask, why)` when it has taken one back whose mask cannot be asked again,
 * `elsewhere(mask, answered)` when another tab answered a mask or took that back.
 */
export class Outbox {
  /** Why the last attempt failed; "" when it did not. */
  trouble = "";

  #path;
  #prefix;
  #told;
  #unkept = new Map();
  #last = 0;
  #sending = null;
  #again = false;
  #pause = 0;
  #timer = 0;

  constructor(project, person, told) {
    this.#path = `projects/${project}/review`;
    this.#prefix = `a2lc-outbox/${project}/${person}/`;
    this.#told = told;
    addEventListener("online", () => this.send());
    addEventListener("storage", (event) => this.#hear(event));
  }

  /** Answers, and answers taken back, that wait. */
  get count() {
    return this.#keys().length;
  }

  /** Whether the browser keeps what waits when the page is closed. */
  get keeps() {
    return this.#unkept.size === 0;
  }

  /** The answers that wait and are not taken back. */
  get answers() {
    const found = new Map();
    for (const { answer, undo } of this.#entries()) {
      if (answer) found.set(answer.id, answer);
      else found.delete(undo);
    }
    return [...found.values()];
  }

  add(answer) {
    this.#write({ answer });
  }

  /** Take an answer back, whether it has been sent or not: the backend gets both, in their order. */
  takeBack(answer) {
    this.#write({ undo: answer.id, mask: answer });
  }

  /** Send all there is, now; what fails is tried again and again. */
  send() {
    this.#again = true;
    this.#sending ??= this.#send().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #send() {
    clearTimeout(this.#timer);
    try {
      do {
        this.#again = false;
        await this.#alone(() => this.#drain());
      } while (this.#again);
      this.trouble = "";
      this.#pause = 0;
    } catch (error) {
      this.trouble = error.message;
      this.#pause = Math.min(Math.max(2 * this.#pause, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
      this.#timer = setTimeout(() => this.send(), this.#pause);
    }
    this.#told.changed();
  }

  #alone(work) {
    // There are no locks where a page comes by plain HTTP; answers then may be sent twice, and still count once.
    return navigator.locks ? navigator.locks.request(this.#prefix, work) : work();
  }

  async #drain() {
    for (;;) {
      const waiting = this.#entries();
      if (!waiting.length) return;
      const undo = waiting.findIndex((entry) => entry.undo);
      if (undo === 0) await this.#sendUndo(waiting[0]);
      else await this.#sendAnswers(waiting.slice(0, undo > 0 ? Math.min(undo, MOST) : MOST));
      this.#told.changed();
    }
  }

  async #sendAnswers(entries) {
    const reply = await this.#tell("answers", { answers: entries.map((entry) => entry.answer) });
    const refused = new Map(reply.refused.map((item) => [item.id, item.why]));
    const decided = new Set([...reply.accepted, ...refused.keys()]);
    const done = entries.filter((entry) => decided.has(entry.answer.id));
    if (!done.length) throw new Error("the backend said nothing of the answers that it was sent");
    done.forEach((entry) => this.#cross(entry.key));
    const lost = done.filter((entry) => refused.has(entry.answer.id));
    if (lost.length) this.#told.refused(lost.map(({ answer }) => ({ answer, why: refused.get(answer.id) })));
  }

  async #sendUndo(entry) {
    let why = "";
    try {
      ({ why } = await this.#tell("undo", { id: entry.undo }));
    } catch (error) {
      // An answer that was refused is not there: there is nothing to take back.
      if (!(error instanceof Refused) || error.status !== 404) throw error;
    }
    this.#cross(entry.key);
    if (why) this.#told.over(entry.mask, why);
  }

  #tell(what, body) {
    const options = { keepalive: true, signal: AbortSignal.timeout(PATIENCE_MS) };
    return tell("POST", `${this.#path}/${what}`, body, options);
  }

  #write(entry) {
    this.#last = Math.max(Date.now(), this.#last + 0.001);
    const key = `${this.#prefix}${this.#last.toFixed(3)}-${newId()}`;
    try {
      localStorage.setItem(key, JSON.stringify(entry));
    } catch {
      this.#unkept.set(key, entry); // the browser keeps nothing, or is full
    }
    this.#told.changed();
  }

  #cross(key) {
    if (!this.#unkept.delete(key)) localStorage.removeItem(key);
  }

  #keys() {
    let kept = [];
    try {
      kept = Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix));
    } catch {
      // no storage in this browser
    }
    return [...kept, ...this.#unkept.keys()].sort();
  }

  #entries() {
    return this.#keys().flatMap((key) => {
      const entry = this.#unkept.get(key) ?? JSON.parse(localStorage.getItem(key));
      return entry ? [{ key, ...entry }] : [];
    });
  }

  #hear(event) {
    if (!event.key?.startsWith(this.#prefix)) return;
    if (event.newValue) {
      const { answer, mask } = JSON.parse(event.newValue);
      this.#told.elsewhere(answer ?? mask, Boolean(answer));
    }
    this.#told.changed();
  }
}
