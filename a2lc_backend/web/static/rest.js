// What the review page says when there is no mask to show, and where to go on.

import { at, element, fill } from "./elements.js";

/** Show a title, words and links in place of a mask; a link that is empty is left out. */
export function rest(title, text, links = []) {
  at("rest-title").textContent = title;
  at("rest-text").textContent = text;
  fill(at("rest-links"), ...links.filter(Boolean));
}

/** A link; nothing without an address. */
export function link(address, text) {
  return address && element("a", { href: address }, text);
}

/** Why no mask is shown one by one: nothing is asked, or all is answered; `left` are asked of others. */
export function nothingLeft(status, person, left) {
  const room = person.role === "admin" && link(`./#/${status.project}`, "Open the control room");
  const inPlace = link(status.queue_link, "Review in place, in Label Studio");
  const again = "This page looks again every 10 seconds.";
  if (status.said) return rest("Nothing is asked now", `${status.said} ${again}`, [room, inPlace]);
  if (left === null) return rest("Looking for masks…", "");
  const some =
    left === 1
      ? "One is left: on somebody else's screen, or you skipped it."
      : `${left} are left: on other people's screens, or you skipped them.`;
  const none = `Every mask of round ${status.round} has its answer. An admin begins the next round in the control room.`;
  const text = [
    left ? some : none,
    status.disagreements && `People disagree about ${status.disagreements}; those come back in a later round.`,
    status.unsent && `${status.unsent} answers are on their way to Label Studio.`,
    again,
  ];
  const links = [room, inPlace, link(status.review_link, "The answers in Label Studio")];
  return rest(left ? "Nothing is left for you" : "All is answered", text.filter(Boolean).join(" "), links);
}

/** Why there is no screen of masks. */
export function nothingAlike(isEmpty) {
  if (isEmpty) rest("No masks are suspected of the same confusion", "Go on one by one: press g.");
  else rest("Looking for masks of one confusion…", "");
}
