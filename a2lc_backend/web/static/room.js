// The control room. Everything it shows comes from the API; everything it does is a call of the API.

import { showAccount } from "./account.js";
import { ask, tell, Unreachable } from "./api.js";
import { button, sure } from "./controls.js";
import { curve } from "./curve.js";
import { openDryRun } from "./dryrun.js";
import { element, fill, percent, picture, row, table } from "./elements.js";
import { figures } from "./figures.js";
import { groupControls, maskControl } from "./groups.js";
import { openLineage } from "./lineage.js";
import { openSettings } from "./settings.js";

const BUSY_MS = 1000;
const IDLE_MS = 5000;
const PAGE = 24;

const room = document.getElementById("room");
const trouble = document.getElementById("trouble");
const chooser = document.getElementById("project");

let timer = 0;
const shown = { project: null, drawn: "", group: null, band: null, offset: 0, links: "none yet" };

showAccount(document.getElementById("account"));
addEventListener("hashchange", () => follow());
chooser.addEventListener("change", () => {
  location.hash = `#/${chooser.value}`;
});
follow();

/** Look at the backend now, and again and again: often while a round runs. */
async function follow() {
  clearTimeout(timer);
  let busy = false;
  try {
    busy = await look();
    say("");
  } catch (error) {
    const away = "The backend does not answer. Start it with “a2lc serve”; this page goes on by itself.";
    say(error instanceof Unreachable ? away : error.message);
  }
  room.setAttribute("aria-busy", "false");
  timer = setTimeout(follow, busy ? BUSY_MS : IDLE_MS);
}

function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

async function look() {
  const projects = await ask("projects");
  const wanted = Number(location.hash.slice(2)) || projects[0]?.id;
  const project = projects.find((one) => one.id === wanted);
  choose(projects, wanted);
  const settings = document.getElementById("settings-open");
  settings.hidden = !project;
  settings.onclick = () => openSettings(project);
  if (!project) {
    nothing(projects, wanted);
    return false;
  }
  if (shown.project !== project.id) {
    Object.assign(shown, { project: project.id, drawn: "", group: null, band: null, offset: 0, links: "none yet" });
  }
  const rounds = await ask(`projects/${project.id}/rounds`);
  const last = rounds.findLast((one) => !["done", "cancelled"].includes(one.status)) ?? rounds.at(-1);
  // One that is only published again still holds.
  const done = rounds.findLast((one) => one.status === "done" || ("tasks" in one.summary && one.status !== "cancelled"));
  const studio = await ask("label-studio");
  absent(studio.trouble);
  if (!studio.trouble && done?.version !== shown.links) {
    shown.links = done?.version;
    links(project);
  }
  const report = last && (await ask(`projects/${project.id}/rounds/${last.number}`));
  const proof = done && (done.number === last.number ? report : await ask(`projects/${project.id}/rounds/${done.number}`));
  const groups = done ? await ask(`projects/${project.id}/proposals?round=${done.number}`) : [];
  const state = JSON.stringify([project, rounds, report, groups, studio]);
  if (state !== shown.drawn) {
    shown.drawn = state;
    draw({ project, rounds, last, done, report, proof, groups });
  }
  return ["running", "cancelling"].includes(last?.status);
}

function choose(projects, wanted) {
  const texts = projects.map((one) => `${one.id} · ${one.title}`);
  if (chooser.dataset.texts !== texts.join("\n")) {
    chooser.dataset.texts = texts.join("\n");
    fill(chooser, ...projects.map((one, index) => element("option", { value: one.id }, texts[index])));
  }
  chooser.value = wanted ?? "";
}

function nothing(projects, wanted) {
  shown.project = null;
  const missing = projects.length > 0;
  fill(
    room,
    element(
      "section",
      { class: "wide" },
      element("h2", {}, missing ? `Project ${wanted} is not known here` : "No project yet"),
      element(
        "p",
        {},
        missing
          ? "Choose another above, or begin its first round:"
          : "Connect a project of Label Studio and begin its first round; it then appears here by itself:",
      ),
      element("pre", {}, "a2lc connect --project N\na2lc rounds next --project N"),
    ),
  );
}

/** Say that Label Studio is away, and that the rest goes on. */
function absent(trouble) {
  const place = document.getElementById("studio");
  const text = trouble && `${trouble}. Pictures and rounds wait for it; what this program knows itself is shown.`;
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

/** Links into Label Studio, and what is wrong with it if it does not give them. */
async function links(project) {
  const nav = document.getElementById("links");
  const review = element("a", { href: `review/${project.id}` }, "Review page");
  const open = element("a", { href: project.label_studio }, "Open in Label Studio");
  fill(nav, review, open);
  try {
    const { queue } = await ask(`projects/${project.id}/links`);
    if (queue && shown.project === project.id) fill(nav, review, element("a", { href: queue }, "Review queue"), open);
  } catch (error) {
    if (shown.project === project.id) {
      fill(nav, review, open, element("span", { class: "bad" }, `Label Studio: ${error.message}`));
    }
  }
}

function draw(state) {
  const held = document.activeElement?.id;
  fill(room, now(state), quality(state), corrections(state), figures(state), history(state), problems(state));
  if (held) document.getElementById(held)?.focus();
  const group = state.groups.find((one) => one.before === shown.group?.before && one.after === shown.group?.after);
  if (group) masks(state, group, shown.offset, shown.band);
}

// Where the round is

function now({ project, last, report }) {
  const card = element("section", { "aria-labelledby": "now" });
  const status = last ? `Round ${last.number}: ${last.status}` : "No round yet";
  card.append(element("h2", { id: "now" }, status));
  if (last?.error) card.append(element("p", { class: "bad" }, last.error));
  if (report && last.status !== "done") card.append(phases(report.phases));
  if (last?.status === "done") card.append(summary(last.summary));
  card.append(actions(project, last));
  return card;
}

function phases(list) {
  const rows = list.map((phase) => {
    const left = phase.status === "done" ? `${(phase.ended - phase.started).toFixed(1)} s` : phase.eta ? `${Math.ceil(phase.eta)} s left` : "";
    const bar = element("progress", {
      max: Math.max(phase.total, 1),
      value: phase.status === "done" ? Math.max(phase.total, 1) : phase.done,
      "aria-label": phase.name,
    });
    const note = phase.note ? element("div", { class: "bad" }, phase.note) : "";
    return row(phase.name, element("span", {}, bar, note), `${phase.done}/${phase.total}`, left);
  });
  return table(["Phase", "", "Done", "Time"], rows);
}

const FIGURES = [
  ["queued", "masks to check"],
  ["answered", "answers counted"],
  ["changed_by_people", "changed by people"],
  ["changed_by_corrector", "changed by the corrector"],
  ["masks", "masks in all"],
  ["tasks_left_out", "images left out"],
];

function summary(figures) {
  const known = FIGURES.filter(([name]) => name in figures);
  return element(
    "div",
    { class: "figures" },
    ...known.map(([name, text]) => element("div", {}, element("b", {}, String(figures[name])), text)),
  );
}

function actions(project, last) {
  const at = `projects/${project.id}/rounds`;
  const status = last?.status;
  const line = element("div", { class: "actions" });
  if (["running", "cancelling"].includes(status)) {
    line.append(button("pause", "Pause", () => act("POST", `${at}/pause`), status !== "running"));
  } else {
    const again = ["paused", "failed"].includes(status);
    const number = last ? last.number + (again ? 0 : 1) : 0;
    const begin = (budget) => act("POST", at, budget ? { budget } : {});
    const dry = number > 0 && !again;
    const text = again ? `Go on with round ${number}` : dry ? "Next round" : `Begin round ${number}`;
    line.append(button("next", text, () => (dry ? openDryRun(project, number, begin) : begin()), false, "primary"));
  }
  if (["running", "paused", "failed"].includes(status)) {
    const why = "Its labels and its queue are dropped; those of the round before stay, and so does what people answered.";
    line.append(
      button("cancel", "Cancel the round", async () => {
        if (await sure(`Cancel round ${last.number}?`, why, "Cancel it")) await act("POST", `${at}/cancel`);
      }),
    );
  }
  return line;
}

// How right the labels are

function quality({ rounds, proof }) {
  const card = element("section", { "aria-labelledby": "quality" }, element("h2", { id: "quality" }, "How right the labels are"));
  const finished = rounds.filter((one) => one.status === "done");
  const known = finished.filter((one) => "still_wrong" in one.summary);
  const pooled = proof?.audits.find((one) => one.about === -1);
  if (pooled?.audited) {
    const share = percent(pooled.right / pooled.audited);
    card.append(element("p", {}, `Of the corrector's labels, ${pooled.audited} were checked blind: ${share} are right.`));
  }
  if (known.length) {
    const { still_wrong, still_wrong_low, still_wrong_high } = known.at(-1).summary;
    const low = Math.round(still_wrong_low);
    const high = Math.round(still_wrong_high);
    card.append(element("p", {}, `About ${Math.round(still_wrong)} masks are still wrong (95 %: ${low} to ${high}).`));
  }
  if (!pooled?.audited && !known.length) {
    card.append(
      element("p", { class: "quiet" }, "Nothing can be said yet: answer the review queue, then begin the next round."),
    );
  }
  if (finished.length > 1) {
    const chart = element("div", { class: "chart" });
    card.append(chart);
    requestAnimationFrame(() => curve(chart, finished));
  }
  return card;
}

// What was changed without a person

function corrections({ project, done, groups }) {
  const card = element("section", { class: "wide", "aria-labelledby": "corrections" });
  card.append(element("h2", { id: "corrections" }, done ? `Automatic corrections of round ${done.number}` : "Automatic corrections"));
  if (!groups.length) {
    const text = done?.number ? "The corrector proposed nothing in this round." : "The corrector begins when people have answered.";
    card.append(element("p", { class: "quiet" }, text));
    return card;
  }
  const rows = groups.map((group) => {
    const key = `${group.before} → ${group.after}`;
    const look = button(`group-${key}`, key, () => masks({ project, done }, group, 0));
    look.setAttribute("aria-controls", "masks");
    return row(look, group.proposed, group.applied, group.proposed - group.applied, group.approved ? "approved" : "");
  });
  const hint = element("p", { class: "quiet" }, "Choose a pair of classes to see its masks.");
  const pictures = element("div", { id: "masks", "aria-live": "polite" }, hint);
  card.append(
    element("div", { class: "pair" }, table(["From → to", "Proposed", "Applied", "Held back", ""], rows), pictures),
  );
  return card;
}

/** Pictures of a group's masks, a page at a time. */
async function masks({ project, done }, group, offset, band = null) {
  Object.assign(shown, { group, offset, band });
  const held = document.activeElement?.id;
  const query = new URLSearchParams({
    round: done.number,
    before: group.before,
    after: group.after,
    least: band?.least ?? 0,
    most: band?.most ?? 1,
    limit: PAGE,
    offset,
  });
  const choose = (chosen) => masks({ project, done }, group, 0, chosen);
  const again = () => {
    shown.drawn = "";
    return follow();
  };
  let found, words;
  try {
    found = await ask(`projects/${project.id}/proposals/masks?${query}`);
    words = await groupControls({ project, done }, group, band, choose, again);
  } catch (error) {
    refill("masks", element("p", { class: "bad" }, error.message));
    return;
  }
  const items = found.map((item) => {
    const where = `${encodeURIComponent(item.region_id)}.jpg`;
    const address = `api/projects/${project.id}/rounds/${done.number}/masks/${item.task_id}/${where}`;
    const text = `Mask ${item.region_id} of task ${item.task_id}`;
    const open = button(`mask-${item.task_id}-${item.region_id}`, "", () => openLineage(project.id, done.number, item), false, "picture");
    open.append(picture(address, text));
    open.setAttribute("aria-label", `${text}: what happened to it`);
    return element(
      "li",
      {},
      open,
      element("small", {}, `${item.state}, believed ${percent(item.belief)}`),
      maskControl({ project, done }, item, again),
    );
  });
  const pages = element("div", { class: "actions" });
  const turn = (id, text, to) => pages.append(button(id, text, () => masks({ project, done }, group, to, band), to === offset));
  if (words.count > PAGE) {
    const end = Math.floor((words.count - 1) / PAGE) * PAGE;
    turn("first", "First", 0);
    turn("earlier", "Earlier", Math.max(offset - PAGE, 0));
    turn("later", "More", Math.min(offset + PAGE, end));
    turn("last", "Last", end);
  }
  const from = `${offset + 1} to ${offset + items.length} of ${words.count}`;
  const heading = element("h3", {}, `${group.before} → ${group.after}: ${from}`);
  refill("masks", heading, ...words.parts, element("ul", { class: "masks" }, ...items), pages);
  if (held) document.getElementById(held)?.focus();
}

// All rounds

function history({ project, rounds, last }) {
  const card = element("section", { class: "wide", "aria-labelledby": "rounds" }, element("h2", { id: "rounds" }, "Rounds"));
  if (!rounds.length) {
    card.append(element("p", { class: "quiet" }, "Round 0 labels every mask; begin it above."));
    return card;
  }
  const ended = ["done", "cancelled"].includes(last.status);
  const rows = rounds.toReversed().map((one) => {
    const counts = ["queued", "answered", "changed_by_people", "changed_by_corrector", "undone"].map((name) => one.summary[name] ?? "");
    return row(`${one.number}`, one.status, ...counts, one.version, takeBack(project, one, ended));
  });
  card.append(
    table(["Round", "Status", "Queued", "Answered", "By people", "By corrector", "Taken back", "Version", ""], rows),
  );
  return card;
}

function takeBack(project, one, ended) {
  const at = `projects/${project.id}/rounds/${one.number}`;
  if (one.status !== "done") return "";
  const { undone, changed_by_corrector } = one.summary;
  const undo = async () => {
    const title = `Take back the ${changed_by_corrector} automatic corrections of round ${one.number}?`;
    const text = "The labels the corrector had replaced hold again, and are published. Answers of people stay.";
    if (await sure(title, text, "Take them back")) await act("POST", `${at}/undo`);
  };
  // Both, where some were rejected and the others hold.
  return element(
    "span",
    {},
    changed_by_corrector ? button(`undo-${one.number}`, "Undo", undo, !ended) : "",
    undone ? button(`redo-${one.number}`, "Let them hold again", () => act("POST", `${at}/redo`), !ended) : "",
  );
}

function problems({ project, report }) {
  const found = report?.problems ?? [];
  if (!found.length) return "";
  const rows = found.slice(0, 200).map((item) => {
    const task = item.task_id ? element("a", { href: `${project.label_studio}?task=${item.task_id}` }, `task ${item.task_id}`) : "";
    const line = row(item.phase, task, item.message);
    line.lastChild.className = "said";
    return line;
  });
  return element(
    "section",
    { class: "wide", "aria-labelledby": "problems" },
    element("h2", { id: "problems" }, `Problems of round ${report.round.number}: ${found.length}`),
    table(["Phase", "Task", "What, and the mend"], rows),
  );
}

// Small things

/** Fill a place by its id, unless the page has been drawn without it meanwhile. */
function refill(id, ...children) {
  const place = document.getElementById(id);
  if (place) fill(place, ...children);
}

/** Do something, and look at once at what came of it. */
async function act(method, path, body) {
  try {
    await tell(method, path, body);
  } catch (error) {
    if (error instanceof Unreachable) return follow();
    await sure("That was not done", error.message, "I see");
  }
  shown.drawn = "";
  return follow();
}
