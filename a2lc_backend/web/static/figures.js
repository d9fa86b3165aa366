// What an admin steers by: classes, people, the queue's hit rate, the corrector class by class, what a budget buys.

import { ask } from "./api.js";
import { bar, element, interval, percent, row, table } from "./elements.js";
import { failure, Load } from "./load.js";
import { Parts } from "./parts.js";
import { duration } from "./words.js";

const BUDGETS = { 0.5: "half of it", 1: "the queue now waiting", 2: "twice as many" };
const MOST_ROUNDS = 4;

/** The sections of figures, fetched when a round or an answer has changed them. */
export class Figures {
  node = element("div", { id: "figures", class: "spread" });

  #parts = new Parts(this.node);
  #load = new Load();
  #cards = [];

  show({ project, done }) {
    this.#load.want(
      `${done?.version} ${project.corrections}`,
      () => ask(`projects/${project.id}/figures`),
      (said) => {
        const drawn = { budgets: () => budgets(said), people: () => people(said), classes: () => classes(said), precision: () => precision(said) };
        const seen = { budgets: said.purchases, people: [said.hit_rates, said.people], classes: [said.classes, said.round], precision: said.precision };
        this.#cards = said.round === null ? [] : Object.keys(drawn).map((id) => [id, seen[id], drawn[id]]);
        this.#parts.show(this.#cards);
      },
      (why) => {
        const draw = () => element("section", { class: "wide" }, failure("figures-again", `The figures cannot be had now: ${why}`, this.#load.again));
        this.#parts.show([...this.#cards, ["failure", why, draw]]); // what was had before still says something
      },
    );
  }

  stop() {
    this.#load.stop();
  }
}

function card(id, title, ...children) {
  return element("section", { "aria-labelledby": id }, element("h2", { id }, title), ...children);
}

function quiet(text) {
  return element("p", { class: "quiet" }, text);
}

function budgets({ purchases }) {
  if (!purchases.length) {
    return card("budgets", "What the next answers buy", quiet("Cannot be said before a review queue was answered."));
  }
  const rows = purchases.map(({ share, queries, fixes }) => {
    const range = `${Math.round(fixes.low)} to ${Math.round(fixes.high)}`;
    const drawn = interval(fixes.low / queries, fixes.high / queries, fixes.value / queries);
    return row(BUDGETS[share] ?? `${share} times`, queries, element("b", {}, Math.round(fixes.value)), range, drawn);
  });
  const basis =
    "From how often people changed what the last queue asked, and how sure the segmenter is of the masks that each budget would ask about; never more than are still wrong. Towards the end of a project the middle figure is rather too high.";
  const later = purchases.length < 3 ? quiet("Other budgets can be told of from the next round on.") : "";
  const headings = ["Answering", "Masks", "Should mend", "95 %", ""];
  return card("budgets", "What the next answers buy", table(headings, rows), quiet(basis), later);
}

function people({ hit_rates, people, pause_seconds }) {
  const answered = hit_rates.filter((one) => one.answered);
  if (!answered.length && !people.length) {
    return card("people", "What people do", quiet("Nobody has answered yet."));
  }
  const hits = answered.toReversed().map((one) => {
    const share = one.changed / one.answered;
    const random = one.random_answered ? `${one.random_changed} of ${one.random_answered}` : "";
    return row(`Round ${one.round}`, `${one.answered} of ${one.queued}`, one.changed, labelled(share, percent(share)), random);
  });
  const paces = people.map((one) => {
    const rate = (value) => (value === null ? "not known" : Math.round(value));
    return row(one.name, one.answers, one.changes, duration(3600 * one.hours), rate(one.answers_an_hour), rate(one.changes_an_hour));
  });
  const counted = `An hour is an active one: the time from one submit to the next, pauses of more than ${Math.round(pause_seconds / 60)} minutes left out, and with them the first submit after each.`;
  return card(
    "people",
    "What people do",
    table(["Queue of", "Answered", "Changed", "Hit rate", "Of those drawn at random"], hits),
    element("h3", {}, "Who answers"),
    table(["Person", "Answers", "Changed", "Active", "Answers/hour", "Corrections/hour"], paces),
    quiet(counted),
  );
}

function classes({ classes, round }) {
  if (!classes.length) return card("classes", "Classes", quiet("Round 0 gives the first labels."));
  const pixels = Math.max(1, classes.reduce((sum, one) => sum + one.pixels, 0));
  const queued = Math.max(1, classes.reduce((sum, one) => sum + one.queued, 0));
  const rows = classes.map((one) =>
    row(
      one.name === "none" ? "no label" : one.name,
      labelled(one.pixels / pixels, share(one.pixels / pixels)),
      one.masks,
      one.by_people,
      one.by_corrector,
      one.queued ? labelled(one.queued / queued, one.queued) : "",
    ),
  );
  const headings = ["Class", "Pixels", "Masks", "People's", "Corrector's", "Queued"];
  return card("classes", `Classes after round ${round}`, table(headings, rows));
}

function share(value) {
  return value > 0 && value < 0.005 ? "< 1 %" : percent(value);
}

function labelled(value, text) {
  return element("span", { class: "labelled" }, bar(value), element("b", {}, text));
}

/** Of every class the share right, over all rounds and in the last ones. */
function precision({ precision }) {
  const title = "How right the corrector is, class by class";
  if (!precision.length) {
    return card("precision", title, quiet("Nothing can be said before people have answered a blind audit."));
  }
  const rounds = [...new Set(precision.map((one) => one.round).filter((one) => one >= 0))].slice(-MOST_ROUNDS).reverse();
  const found = new Map(precision.map((one) => [`${one.round} ${one.name}`, one]));
  const names = precision.filter((one) => one.round < 0).map((one) => one.name);
  const rows = names.map((name) => {
    const all = found.get(`-1 ${name}`);
    const drawn = all.audited ? interval(all.low, all.high, all.right / all.audited) : "";
    const each = rounds.map((round) => counted(found.get(`${round} ${name}`)));
    return row(name || "all classes", counted(all), drawn, ...each);
  });
  const note = "Right of those audited blind, with the 95 % interval in percent. A few answers say little: look at the interval.";
  return card("precision", title, table(["Class", "All rounds", "", ...rounds.map((one) => `Round ${one}`)], rows), quiet(note));
}

function counted(one) {
  if (!one?.audited) return element("span", { class: "quiet" }, "–");
  const range = `${Math.round(100 * one.low)}–${Math.round(100 * one.high)}`;
  return element("span", {}, `${one.right} of ${one.audited} `, element("small", { class: "quiet" }, `(${range})`));
}
