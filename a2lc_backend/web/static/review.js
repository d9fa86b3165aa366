// The review page: one key answers one mask, and the next one is there. The backend asks and keeps; see outbox.js for
// how answers get there, prefetch.js for the masks ahead, grid.js for many at once, progress.js for the line above.

import { showAccount } from "./account.js";
import { ask, speakFor, stayWhile, tell, Unreachable } from "./api.js";
import { at, element, fill, put } from "./elements.js";
import { Grid } from "./grid.js";
import { Guard, keyOf } from "./keys.js";
import { newId, Outbox } from "./outbox.js";
import { bare, nameOf, Queue } from "./prefetch.js";
import { goesOn, Progress } from "./progress.js";
import { link, nothingAlike, nothingLeft, rest } from "./rest.js";
import { Single } from "./single.js";

const RENEW_MS = 60_000;
const AGAIN_MS = 10_000;
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 10_000;
const UNDO_MOST = 50;

const project = Number(location.pathname.split("/").at(-1));

const guard = new Guard();
const answered = new Set(); // names of masks that have an answer from this browser
const history = []; // what can be taken back, newest last
let view = "single";
let comesBack = false; // to the grid, when the odd ones of a screen are answered
let status = null;
let person = null;
let shown = null;
let pressedAt = 0; // when the key was pressed that the next picture is for
let retry = 0;
let timer = 0;
let outbox, queue, single, grid, progress;

begin();

/** Start when the backend says who is here and what is asked; it may take a while to come up. */
async function begin() {
  try {
    person = await ask("me");
    status = await ask(`projects/${project}/review`);
  } catch (error) {
    if (error.status === 404) {
      return rest("There is no such project", error.message, [link("./review/", "All projects to review")]);
    }
    rest("The review cannot begin yet", goesOn(words(error)));
    setTimeout(begin, pause());
    return;
  }
  retry = 0;
  speakFor(person.id);
  outbox = new Outbox(project, person.id, {
    changed: () => tellState(),
    refused: (items) => refuse(items),
    over: (mask, why) => isTakenBack(nameOf(mask), why),
    elsewhere: (mask, isAnswered) => (isAnswered ? answeredElsewhere(nameOf(mask)) : answered.delete(nameOf(mask))),
  });
  stayWhile(() => outbox.count > 0 && !outbox.keeps);
  progress = new Progress(status, outbox);
  outbox.answers.forEach((mask) => answered.add(nameOf(mask)));
  const known = { answered: (name) => answered.has(name), waiting: () => outbox.count, changed: () => draw() };
  queue = new Queue(project, {
    ...known,
    elsewhere: () => grid.masks,
    lost: (names) => isLost(names),
  });
  single = new Single(status.classes, (label, event) => pressed(event) && answer("label", label, event));
  grid = new Grid(project, status.classes, {
    ...known,
    apart: () => queue.odd,
    toggled: (place, event) => pressed(event) && grid.toggle(place),
  });
  listen();
  showAccount(at("account"), async () => {
    await outbox.send();
    giveBack(); // now, as somebody who is still logged in
  });
  outbox.send();
  await follow();
}

/** Renew what is held and see how far all is, now, and again and again. */
async function follow() {
  clearTimeout(timer);
  let wait = RENEW_MS;
  try {
    if (!document.hidden) {
      status = await ask(`projects/${project}/review`);
      progress.counted(status);
      await queue.renew();
      if (view === "grid" && !grid.screen) await grid.open();
      if (view === "grid" ? !grid.screen : !queue.length) wait = AGAIN_MS;
    }
    progress.trouble = "";
    retry = 0;
  } catch (error) {
    progress.trouble = words(error);
    wait = pause();
  }
  draw();
  clearTimeout(timer); // of another call meanwhile
  timer = setTimeout(follow, wait);
}

/** More masks are wanted; when that fails, `follow` says so and tries again. */
function refill() {
  if (queue.isShort) queue.renew().catch(() => follow());
}

function pause() {
  retry = Math.min(Math.max(2 * retry, FIRST_RETRY_MS), LONGEST_RETRY_MS);
  return retry;
}

function words(error) {
  if (error.status === 401) return "You are logged out here. Log in in another tab: answers that are not sent yet wait in this one.";
  return error instanceof Unreachable ? "The backend does not answer. Start it with “a2lc serve”." : error.message;
}

// Answers

/** Note an answer about a mask; it is sent when the next one is painted. */
function note(sight, kind, label, seconds) {
  const { round, task, region } = sight.question;
  const said = { id: newId(), round, task, region, kind, label, seconds: Math.min(Number(seconds.toFixed(2)), 3600) };
  answered.add(sight.name);
  outbox.add(said);
  progress.answered(said);
  return said;
}

/** Keep what undo needs; not for ever, as it holds pictures. */
function remember(item) {
  history.push(item);
  if (history.length > UNDO_MOST) history.shift();
}

function answer(kind, label, event) {
  const sight = queue.current;
  if (!sight || (kind === "label" && !sight.crop)) return;
  const said = note(sight, kind, label, guard.seconds);
  remember({ sights: [sight], answers: [said] });
  grid.forget(sight.name);
  queue.advance();
  const isBack = comesBack && !queue.odd.length;
  if (isBack) view = "grid";
  draw(event);
  say(`${kind === "label" ? nameOfClass(label) : kind === "skip" ? "Skipped" : "The mask is wrong"}. ⌫ takes it back.`);
  if (kind === "wrong") open(sight.question.link, "_blank", "noopener");
  if (isBack && !grid.screen) openGrid();
  afterPaint();
}

function answerScreen(event) {
  if (!grid.isWhole) return;
  const { even, odd } = grid.parted();
  const screen = grid.screen;
  const seconds = guard.seconds / screen.sights.length;
  const answers = even.map((sight) => note(sight, "label", screen.guess, seconds));
  remember({ sights: even, answers, screen });
  even.forEach((sight) => queue.forget(sight.name));
  odd.forEach((sight) => (sight.odd = true));
  if (odd.length) {
    view = "single";
    comesBack = true;
    queue.putFirst(odd);
  }
  grid.turn();
  draw(event);
  const others = odd.length ? `, ${odd.length} asked one by one` : "";
  say(`${even.length} are ${nameOfClass(screen.guess)}${others}. ⌫ takes the screen back.`);
  afterPaint(() => grid.fill());
}

function undo(event) {
  const last = history.pop();
  if (!last) return;
  last.answers.forEach((said) => outbox.takeBack(said));
  last.sights.forEach((sight) => answered.delete(sight.name));
  progress.takenBack(last.answers);
  if (last.screen) {
    view = "grid";
    last.screen.sights.forEach((sight) => queue.forget(sight.name));
    grid.restore(last.screen);
  } else {
    view = "single";
    queue.putFirst(last.sights);
  }
  draw(event);
  say("Taken back.");
  afterPaint();
}

/** What the network wants waits until the new mask can be seen; `more` comes when the answers are there. */
function afterPaint(more = async () => {}) {
  requestAnimationFrame(() =>
    setTimeout(async () => {
      await outbox.send(); // first, so that what is left is counted with these answers
      refill();
      more().catch(() => follow());
    }),
  );
}

function answeredElsewhere(name) {
  answered.add(name);
  queue.forget(name);
  grid.forget(name);
  draw();
}

/** An answer was taken back whose mask cannot be asked again. */
function isTakenBack(name, why) {
  queue.forget(name);
  grid.forget(name);
  draw();
  say(`It is taken back; ${why}.`);
}

/** Masks of the grid are somebody else's now, or their round is over. */
function isLost(names) {
  names.forEach((name) => grid.forget(name));
  if (names.length && view === "grid" && !grid.screen) openGrid();
}

/** The backend will never take these answers: their masks are as they were before. */
function refuse(items) {
  items.forEach(({ answer }) => answered.delete(nameOf(answer)));
  progress.refuse(items.map(({ why }) => why));
  refill();
}

// Keys and buttons

function listen() {
  ["views", "keys"].forEach((id) => (at(id).hidden = false));
  addEventListener("keydown", onKey);
  // A button that was clicked must not take the next Space; one that was reached by Tab may.
  addEventListener("click", (event) => event.detail > 0 && document.activeElement?.closest("button")?.blur());
  addEventListener("pagehide", giveBack);
  addEventListener("pageshow", (event) => event.persisted && follow());
  addEventListener("storage", (event) => event.key === released() && follow());
  document.addEventListener("visibilitychange", () => document.hidden || (outbox.send(), follow()));
  const acts = {
    skip: (event) => answer("skip", null, event),
    wrong: (event) => answer("wrong", null, event),
    undo,
    "undo-grid": undo,
    none: () => grid.toggleAll(),
    finish: answerScreen,
  };
  for (const [id, act] of Object.entries(acts)) at(id).addEventListener("click", (event) => pressed(event) && act(event));
  at("to-single").addEventListener("click", () => turnTo("single"));
  at("to-grid").addEventListener("click", () => turnTo("grid"));
  at("keys").addEventListener("click", () => at("help").showModal());
  at("pair").addEventListener("change", (event) => {
    event.target.blur();
    openGrid(status.suspicions[event.target.value]);
  });
}

function onKey(event) {
  const key = keyOf(event);
  const on = event.target instanceof Element ? event.target : document.body;
  if (!key || at("help").open || on.closest("input, textarea, select, [contenteditable]")) return;
  const presses = (key === " " || key === "enter") && on.closest("button, a");
  if (presses) return event.repeat ? event.preventDefault() : undefined; // the focused button is meant
  const act = meaning(key);
  if (!act) return;
  event.preventDefault();
  if (!event.repeat && (key === "?" || pressed(event))) act(event);
}

/** What a key does now; undefined for nothing. */
function meaning(key) {
  if (key === "?") return () => at("help").showModal();
  if (key === "g") return () => turnTo(view === "grid" ? "single" : "grid");
  if (key === "u" || key === "backspace") return undo;
  if (view === "grid") {
    if (!grid.isWhole) return undefined;
    if (key === " ") return answerScreen;
    if (key === "n") return () => grid.toggleAll();
    const place = grid.placeOf(key);
    return place < 0 ? undefined : () => grid.toggle(place);
  }
  if (key === " ") return (event) => answer("skip", null, event);
  if (key === "0") return (event) => answer("wrong", null, event);
  const label = single.labelOf(key);
  return label === undefined ? undefined : (event) => answer("label", label, event);
}

/** Whether a key or a click may count now. */
function pressed(event) {
  if (!shown) return true; // nothing can be answered, so nothing can be hit by mistake
  if (!guard.lets(event)) return false;
  if (queue.expired) {
    say("Looking whether these masks are still yours…");
    follow();
    return false;
  }
  return true;
}

function turnTo(wanted) {
  if (wanted === view) return;
  view = wanted;
  comesBack = false;
  put("said", "");
  if (view === "grid") return grid.screen ? draw() : openGrid();
  leaveGrid();
  draw();
  refill();
}

/** Let others have the masks of the grid. */
function leaveGrid() {
  const mine = new Set(queue.masks.map(nameOf));
  const held = grid.clear().filter((mask) => !mine.has(nameOf(mask)) && !answered.has(nameOf(mask)));
  if (held.length) tell("POST", `projects/${project}/review/release`, { masks: held.map(bare) }).catch(() => {});
}

async function openGrid(pair) {
  leaveGrid();
  draw();
  try {
    await grid.open(pair && { label: pair.label, guess: pair.guess });
  } catch {
    follow();
  }
}

/** Let others have what was not answered; answers that wait stay in the browser. */
function giveBack() {
  const masks = [...queue.masks, ...grid.masks].filter((mask) => !answered.has(nameOf(mask))).slice(0, 100).map(bare);
  const body = new Blob([JSON.stringify({ masks })], { type: "application/json" });
  if (masks.length) navigator.sendBeacon(`api/projects/${project}/review/release`, body);
  queue.expire(); // the browser may show this page again as it was
  try {
    localStorage.setItem(released(), Date.now()); // another tab of the same person takes its masks again
  } catch {
    // no storage in this browser
  }
}

function released() {
  return `a2lc-released/${project}/${person.id}`;
}

// What is seen

/** Bring the page up to date; `event` is the key press that the next mask is painted for. */
function draw(event) {
  if (view === "single") queue.settle();
  const isGrid = view === "grid";
  const isAsked = isGrid ? grid.screen !== null : queue.length > 0;
  at("single").hidden = isGrid || !isAsked;
  at("grid").hidden = !isGrid || !isAsked;
  at("rest").hidden = isAsked;
  at("to-single").setAttribute("aria-pressed", !isGrid);
  at("to-grid").setAttribute("aria-pressed", isGrid);
  document.title = `${status.title} · A²LC review`;
  at("title").textContent = status.title;
  if (isGrid && isAsked) drawGrid();
  else if (isGrid) nothingAlike(grid.isEmpty);
  else if (isAsked) single.show(queue.current);
  else nothingLeft(status, person, queue.left);
  if (event) pressedAt = event.timeStamp;
  if (!isAsked) pressedAt = 0;
  const now = isGrid ? (grid.isWhole ? grid.screen : null) : (queue.current?.crop ?? queue.current);
  if (now !== shown) {
    shown = now;
    const isSeen = isGrid || Boolean(queue.current?.crop);
    if (now) guard.swapped(isSeen ? pressedAt : 0);
    else guard.emptied();
    if (now && isSeen) pressedAt = 0;
  }
  tellState();
}

function drawGrid() {
  const pairs = status.suspicions.map((pair) => `${grid.words(pair)} (${pair.count})`);
  if (at("pair").dataset.pairs !== pairs.join("\n")) {
    at("pair").dataset.pairs = pairs.join("\n");
    fill(at("pair"), ...pairs.map((text, index) => element("option", { value: index }, text)));
  }
  const { label, guess } = grid.screen;
  at("pair").value = status.suspicions.findIndex((pair) => pair.label === label && pair.guess === guess);
  grid.show();
}

function tellState() {
  progress.show(queue?.left ?? null);
  at("undo").disabled = at("undo-grid").disabled = history.length === 0;
}

/** Say what happened, and what comes; screen readers read it out. */
function say(text) {
  put("said", view === "single" && queue.current ? `${text} Next: ${single.words}.` : text);
}

function nameOfClass(id) {
  return status.classes.find((kind) => kind.id === id)?.name ?? "?";
}
