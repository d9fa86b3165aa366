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

/** The element of the page that has an id. */
export function at(id) {
  return document.getElementById(id);
}

/** Put a text there, if another one is there. */
export function put(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

/** Put children in place of those that an element has. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children);
}

/** A share of 1 as people read it. */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/** A table with headings; one that is too wide scrolls by itself. */
export function table(headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => (text ? element("th", { scope: "col" }, text) : element("td"))));
  return element("div", { class: "scrolls", tabindex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

/** A row of cells. */
export function row(...cells) {
  return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
}

/** A bar as long as a share of 1; a number stands beside it. */
export function bar(share) {
  return element("span", { class: "bar", style: `--share: ${share}`, "aria-hidden": "true" });
}

/** An interval of shares of 1, and the value in it; the numbers stand beside it. */
export function interval(low, high, value) {
  return element("span", { class: "interval", style: `--low: ${low}; --high: ${high}; --value: ${value}`, "aria-hidden": "true" });
}

/** A picture of a mask; says so where the image cannot be had. */
export function picture(address, text) {
  const made = element("img", { src: address, loading: "lazy", width: 160, height: 160, alt: text });
  made.addEventListener("error", () => made.replaceWith(element("span", { class: "bad missing" }, "The image cannot be had now.")));
  return made;
}
