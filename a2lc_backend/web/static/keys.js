// Which key was meant, and whether it may count yet.

const SEEN_MS = 150;

/** What a key says: a small letter, a digit, "?", " " or a name such as "backspace"; "" where it is not for this page. */
export function keyOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return "";
  if (event.shiftKey && event.key !== "?") return "";
  const name = event.key.toLowerCase();
  if (name.length > 1 || /^[a-z0-9? ]$/.test(name)) return name;
  // A keyboard without Latin letters, or with digits behind the shift key: the place of the key says which it is.
  return /^(?:Key|Digit)([A-Z0-9])$/.exec(event.code)?.[1].toLowerCase() ?? "";
}

/** Keeps keys that were meant for one image from counting for the next. */
export class Guard {
  #seen = Infinity;
  #turn = 0;

  /** A new image has been put on the page; `pressed` is when the key for it was, for the measurement. */
  swapped(pressed) {
    this.emptied();
    const turn = this.#turn;
    // The first frame paints the image, the second begins when it has been painted.
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        if (turn !== this.#turn) return;
        this.#seen = performance.now();
        performance.mark("a2lc-seen", { startTime: this.#seen });
        if (pressed) performance.measure("a2lc-next", { start: pressed, end: this.#seen });
      }),
    );
  }

  /** There is no image on the page. */
  emptied() {
    this.#turn += 1;
    this.#seen = Infinity;
    performance.clearMarks("a2lc-seen");
  }

  /** Whether the image had been visible long enough when a key or a button was pressed. */
  lets(event) {
    return event.timeStamp >= this.#seen + SEEN_MS;
  }

  /** Seconds that the image has been visible. */
  get seconds() {
    return Math.max((performance.now() - this.#seen) / 1000, 0);
  }
}
