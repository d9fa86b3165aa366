// Parts of a page that are drawn anew only when what they show has changed, so that what one does there is not lost.

const FOCUSABLE = "a[href], button, input, select, [tabindex]";

const partings = new WeakMap(); // element → what is to be done when it is gone

/** Have something done when a part has been taken off the page. */
export function whenGone(node, work) {
  partings.set(node, work);
}

/** The parts of one element, which has no other children. */
export class Parts {
  #place;
  #drawn = new Map(); // id → { key, node }

  constructor(place) {
    this.#place = place;
  }

  /** Show parts, each given as its id, the data it shows, and what draws it; one with the same data stays as it is. */
  show(parts) {
    const next = new Map();
    for (const [id, data, draw] of parts) {
      const key = JSON.stringify(data);
      const old = this.#drawn.get(id);
      next.set(id, old?.key === key ? old : { key, node: draw() });
    }
    for (const [id, old] of this.#drawn) {
      if (next.get(id) !== old) replace(old.node, next.get(id)?.node);
    }
    [...next.values()].forEach(({ node }, index) => {
      const there = this.#place.children[index] ?? null;
      if (there !== node) this.#place.insertBefore(node, there);
    });
    this.#drawn = next;
  }
}

/** Put a new element, if any, in the place of an old one: the focus and what was scrolled stay where they were. */
function replace(old, made) {
  const held = old.contains(document.activeElement) ? document.activeElement : null;
  const order = held && [...old.querySelectorAll(FOCUSABLE)].indexOf(held);
  const scrolled = [...old.querySelectorAll(".scrolls")].map((one) => [one.scrollLeft, one.scrollTop]);
  if (made) old.replaceWith(made);
  else old.remove();
  partings.get(old)?.();
  if (!made) return;
  made.querySelectorAll(".scrolls").forEach((one, index) => one.scrollTo(...(scrolled[index] ?? [0, 0])));
  if (held) (held.id ? document.getElementById(held.id) : made.querySelectorAll(FOCUSABLE)[order])?.focus({ preventScroll: true });
}
