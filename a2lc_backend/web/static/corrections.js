// What was changed without a person: the pairs of classes of the last finished round, and pictures of a pair's masks.

import { ask } from "./api.js";
import { button } from "./controls.js";
import { element, percent, picture, row, table } from "./elements.js";
import { groupControls, maskControl } from "./groups.js";
import { openLineage } from "./lineage.js";
import { failure, Load } from "./load.js";
import { Parts } from "./parts.js";

const PAGE = 24;

/** The section of automatic corrections; `follow` looks at the backend again. */
export class Corrections {
  node = element("section", { class: "wide", "aria-labelledby": "corrections" });

  #parts = new Parts(this.node);
  #pictures = element("div", { id: "masks" });
  #inside = new Parts(this.#pictures);
  #load = new Load();
  #state = null;
  #chosen = null; // the pair, the band and the page that is looked at
  #said = 0; // words that were given here, each of which changes what there is to see
  #follow;

  constructor(follow) {
    this.#follow = follow;
  }

  show(state) {
    this.#state = state;
    const { done, groups } = state;
    const title = done ? `Automatic corrections of round ${done.number}` : "Automatic corrections";
    const parts = [["title", title, () => element("h2", { id: "corrections" }, title)]];
    if (groups.length) {
      parts.push(["pair", "", () => element("div", { class: "pair" }, element("div"), this.#pictures)]);
    } else {
      const text = done?.number ? "The corrector proposed nothing in this round." : "The corrector begins when people have answered.";
      parts.push(["none", text, () => element("p", { class: "quiet" }, text)]);
    }
    this.#parts.show(parts);
    if (!groups.length) return;
    this.#pairs ??= new Parts(this.#pictures.previousElementSibling);
    this.#pairs.show([["table", groups, () => this.#table(groups)]]);
    if (this.#group) this.#look();
    else this.#leave();
    this.#mark();
  }

  stop() {
    this.#load.stop();
  }

  #pairs = null;

  /** The chosen pair as it is now; none where no pair is chosen, or the round did not propose it. */
  get #group() {
    const { before, after } = this.#chosen ?? {};
    return this.#state.groups.find((one) => one.before === before && one.after === after);
  }

  #table(groups) {
    const rows = groups.map(({ before, after, proposed, applied, approved }) => {
      const key = `${before} → ${after}`;
      const look = button(`group-${key}`, key, () => this.#choose({ before, after, band: null, offset: 0 }));
      look.setAttribute("aria-controls", "masks");
      return row(look, proposed, applied, proposed - applied, approved ? "approved" : "");
    });
    return table(["From → to", "Proposed", "Applied", "Held back", ""], rows);
  }

  #leave() {
    this.#chosen = null;
    this.#load.stop();
    const hint = "Choose a pair of classes to see its masks.";
    this.#inside.show([["hint", hint, () => element("p", { class: "quiet" }, hint)]]);
  }

  #choose(chosen) {
    this.#chosen = chosen;
    this.#mark();
    return this.#look();
  }

  /** Say which pair is looked at. */
  #mark() {
    const { before, after } = this.#chosen ?? {};
    for (const one of this.#pictures.previousElementSibling.querySelectorAll("button")) {
      one.setAttribute("aria-pressed", String(one.id === `group-${before} → ${after}`));
    }
  }

  /** Look at the backend again, and at the masks, after a word on them. */
  #again = async () => {
    this.#said += 1;
    await this.#follow();
    if (this.#group) await this.#look();
  };

  /** Fetch what is chosen, if that or what hangs on it has changed; until it is there the former stays. */
  #look() {
    const { project, done, trouble } = this.#state;
    const group = this.#group;
    const { band, offset } = this.#chosen;
    const query = new URLSearchParams({
      round: done.number,
      before: group.before,
      after: group.after,
      least: band?.least ?? 0,
      most: band?.most ?? 1,
      limit: PAGE,
      offset,
    });
    const get = async () => {
      const found = await ask(`projects/${project.id}/proposals/masks?${query}`);
      const choose = (one) => this.#choose({ ...this.#chosen, band: one, offset: 0 });
      return { found, words: await groupControls({ project, done }, group, band, choose, this.#again) };
    };
    // Pictures that could not be had are asked for again when Label Studio is back.
    const key = JSON.stringify([done, group, band, offset, trouble, this.#said]);
    return this.#load.want(
      key,
      get,
      (all) => this.#inside.show([["page", key, () => this.#page(group, offset, all)]]),
      (why) => this.#inside.show([["failure", why, () => failure("masks-again", why, this.#load.again)]]),
    );
  }

  /** Pictures of a pair's masks, a page at a time. */
  #page(group, offset, { found, words }) {
    const { project, done } = this.#state;
    const items = found.map((item) => {
      const text = `Mask ${item.region_id} of task ${item.task_id}`;
      const open = button(`mask-${item.task_id}-${item.region_id}`, "", () => openLineage(project.id, done.number, item), false, "picture");
      open.append(picture(item.picture, text));
      open.setAttribute("aria-label", `${text}: what happened to it`);
      return element(
        "li",
        {},
        open,
        element("small", {}, `${item.state}, believed ${percent(item.belief)}`),
        maskControl({ project, done }, item, this.#again),
      );
    });
    const from = `${offset + 1} to ${offset + items.length} of ${words.count}`;
    const heading = element("h3", { "aria-live": "polite" }, `${group.before} → ${group.after}: ${from}`);
    return element("div", {}, heading, ...words.parts, element("ul", { class: "masks" }, ...items), this.#turns(offset, words.count));
  }

  #turns(offset, count) {
    const pages = element("div", { class: "actions" });
    const turn = (id, text, to) => pages.append(button(id, text, () => this.#choose({ ...this.#chosen, offset: to }), to === offset));
    if (count > PAGE) {
      const end = Math.floor((count - 1) / PAGE) * PAGE;
      turn("first", "First", 0);
      turn("earlier", "Earlier", Math.max(offset - PAGE, 0));
      turn("later", "More", Math.min(offset + PAGE, end));
      turn("last", "Last", end);
    }
    return pages;
  }
}
