// How far the review is, whether answers arrive, and what is in the way.

import { at, element, fill, put } from "./elements.js";

const PACE_MS = 3 * 60_000;
const FEW = 5;

/** Words of a fault, as a sentence, and that one need not do anything on this page. */
export function goesOn(text) {
  const sentence = `${text[0].toUpperCase()}${text.slice(1)}`;
  return `${sentence}${/[.!?…]$/.test(text) ? "" : "."} This page goes on by itself.`;
}

/** The line above the masks, and the one below it for what is wrong. */
export class Progress {
  /** Why the page's own last request failed; "" when it did not. */
  trouble = "";

  #outbox;
  #status;
  #since = 0; // answers that `status.mine` does not count yet
  #times = []; // of the last answers
  #refused = "";

  constructor(status, outbox) {
    this.#status = status;
    this.#outbox = outbox;
  }

  /** The backend has counted anew. */
  counted(status) {
    this.#status = status;
    this.#since = this.#outbox.answers.filter(countsAsMine).length;
  }

  /** Something was answered. */
  answered(said) {
    this.#times.push(performance.now());
    if (countsAsMine(said)) this.#since += 1;
  }

  /** The last answers were taken back. */
  takenBack(answers) {
    this.#times.splice(Math.max(this.#times.length - answers.length, 0));
    this.#since -= answers.filter(countsAsMine).length;
  }

  /** Say that answers were not kept, until somebody has seen it. */
  refuse(whys) {
    const some = whys.length === 1 ? "An answer was" : `${whys.length} answers were`;
    this.#refused = `${some} not kept: ${[...new Set(whys)].join("; ")} `;
    const seen = element("button", { type: "button" }, "I see");
    seen.addEventListener("click", () => {
      this.#refused = "";
      this.#tellTrouble();
    });
    fill(at("trouble"), this.#refused, seen);
    at("trouble").hidden = false;
  }

  /** Bring both lines up to date; `left` masks are asked of anybody, null where that is not known. */
  show(left) {
    const waiting = this.#outbox.count;
    const open = Math.max((left ?? this.#status.left) - waiting, 0);
    put("progress", `${open} left · ${this.#status.mine + this.#since} by you${this.#pace()}`);
    at("bar").max = Math.max(this.#status.total, 1);
    at("bar").value = Math.max(this.#status.total - open, 0);
    const isOffline = waiting > 0 && Boolean(this.#outbox.trouble || this.trouble);
    const kept = this.#outbox.keeps ? "kept in this browser" : "leave this page open: this browser keeps nothing";
    put("sent", !waiting ? "All sent" : isOffline ? `Offline: ${waiting} ${kept}` : `Sending ${waiting}`);
    at("sent").className = isOffline ? "bad" : "quiet";
    this.#tellTrouble();
  }

  #pace() {
    const start = performance.now() - PACE_MS;
    this.#times = this.#times.filter((time) => time > start);
    const minutes = (performance.now() - this.#times[0]) / 60_000;
    return this.#times.length > FEW ? ` · ${Math.round((this.#times.length - 1) / minutes)} a minute` : "";
  }

  #tellTrouble() {
    if (this.#refused) return;
    const text = this.trouble || (this.#outbox.trouble && `Answers wait: ${this.#outbox.trouble}`);
    put("trouble", text && goesOn(text));
    at("trouble").hidden = !text;
  }
}

function countsAsMine(said) {
  return said.kind !== "skip";
}
