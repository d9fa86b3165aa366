// Makes elements. Texts are set as text, never as HTML: class names and messages may hold anything.

/** An element with attributes and children; children that are no elements become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== "") made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child ?? ""))));
  return made;
}

/** Put children in place of those that an element has. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children);
}

/** A share of 1 as people read it. */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}
