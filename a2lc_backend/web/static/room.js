// The control room. Everything it shows comes from the API; everything it does is a call of the API.

import { showAccount } from "./account.js";
import { ask, tell, Unreachable } from "./api.js";
import { refused } from "./controls.js";
import { Corrections } from "./corrections.js";
import { at, element, fill, put } from "./elements.js";
import { Figures } from "./figures.js";
import { failure, Load } from "./load.js";
import { Now } from "./now.js";
import { Parts } from "./parts.js";
import { history, problems, quality } from "./rounds.js";
import { openSettings } from "./settings.js";

const BUSY_MS = 1000;
const IDLE_MS = 5000;

const room = new Parts(at("room"));
const nav = new Parts(at("links"));
const chooser = at("project");
const queue = new Load();

let timer = 0;
let looks = 0; // the last look at the backend that was begun; what an earlier one finds comes too late
let shown = null; // the sections of the project that is shown

showAccount(at("account"));
addEventListener("hashchange", () => turnTo());
chooser.addEventListener("change", () => {
  location.hash = `#/${chooser.value}`;
});
follow();

/** Go to the project that the address names. What is shown of another one must not be taken for it meanwhile. */
function turnTo() {
  const wanted = wantedProject();
  if (wanted !== shown?.project) {
    forget();
    room.show([["waiting", wanted, () => element("section", { class: "wide quiet" }, "Looking the project up…")]]);
    at("room").setAttribute("aria-busy", "true");
  }
  return follow();
}

function wantedProject() {
  return Number(location.hash.slice(2));
}

function forget() {
  shown?.figures.stop();
  shown?.corrections.stop();
  shown = null;
  queue.stop();
  nav.show([]);
  at("settings-open").hidden = true;
  document.querySelectorAll("#dryrun[open], #lineage[open]").forEach((dialog) => dialog.close());
}

/** Look at the backend now, and again and again: often while a round runs. */
async function follow() {
  clearTimeout(timer);
  const mine = ++looks;
  let said = "";
  let isBusy = false;
  try {
    const state = await read();
    if (mine !== looks) return;
    draw(state);
    isBusy = ["running", "cancelling"].includes(state.last?.status);
  } catch (error) {
    if (mine !== looks) return;
    const away = "The backend does not answer. Start it with “a2lc serve”; this page goes on by itself.";
    said = error instanceof Unreachable ? away : error.message;
  }
  put("trouble", said);
  at("trouble").hidden = !said;
  at("room").setAttribute("aria-busy", "false");
  timer = setTimeout(follow, isBusy ? BUSY_MS : IDLE_MS);
}

/** What the backend says of the project that is wanted, and of the others their names. */
async function read() {
  const projects = await ask("projects");
  const wanted = wantedProject() || projects[0]?.id;
  const project = projects.find((one) => one.id === wanted);
  if (!project) return { projects, wanted };
  const { trouble } = await ask("label-studio");
  const rounds = await ask(`projects/${project.id}/rounds`);
  const last = rounds.findLast((one) => !["done", "cancelled"].includes(one.status)) ?? rounds.at(-1);
  // One that is only published again still holds.
  const done = rounds.findLast((one) => one.status === "done" || ("tasks" in one.summary && one.status !== "cancelled"));
  const reportOf = (one) => ask(`projects/${project.id}/rounds/${one.number}`);
  const report = last && (await reportOf(last));
  const proof = done && (done.number === last.number ? report : await reportOf(done));
  const groups = done ? await ask(`projects/${project.id}/proposals?round=${done.number}`) : [];
  return { projects, wanted, project, trouble, rounds, last, done, report, proof, groups };
}

function draw(state) {
  const { projects, wanted, project, trouble } = state;
  choose(projects, wanted);
  if (shown && shown.project !== project?.id) forget();
  if (!project) {
    absent("");
    room.show([["nothing", [projects.length > 0, wanted], () => nothing(projects, wanted)]]);
    return;
  }
  shown ??= { project: project.id, now: new Now(act), corrections: new Corrections(follow), figures: new Figures() };
  at("settings-open").hidden = false;
  at("settings-open").onclick = () => openSettings(project);
  absent(trouble);
  links(state);
  sections(state);
}

function sections(state) {
  const { project, rounds, last, proof, report } = state;
  const finished = rounds.filter((one) => one.status === "done");
  const pooled = proof?.audits.find((one) => one.about === -1);
  const wrong = report?.problems ?? [];
  const parts = [
    ["now", "", () => shown.now.node],
    ["quality", [finished, pooled], () => quality(finished, pooled)],
    ["corrections", "", () => shown.corrections.node],
    ["figures", "", () => shown.figures.node],
    ["history", [rounds, last?.status], () => history(project, rounds, last, act)],
  ];
  if (wrong.length) parts.push(["problems", [last.number, wrong], () => problems(project, last.number, wrong)]);
  shown.now.show(state);
  shown.corrections.show(state);
  shown.figures.show(state);
  room.show(parts.map(([id, data, make]) => [id, [project.id, data], make]));
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
  const missing = projects.length > 0;
  return element(
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
  );
}

/** Say that Label Studio is away, and that the rest goes on. */
function absent(trouble) {
  put("studio", trouble && `${trouble}. Pictures and rounds wait for it; what this program knows itself is shown.`);
  at("studio").hidden = !trouble;
}

/** Links to where people review; into Label Studio only while it is there. */
function links({ project, done, trouble }) {
  const review = ["review", project.id, () => element("a", { href: `review/${project.id}` }, "Review page")];
  const open = ["open", project.label_studio, () => element("a", { href: project.label_studio }, "Open in Label Studio")];
  if (trouble) {
    queue.stop();
    nav.show([review]);
    return;
  }
  const show = (address) => {
    const inPlace = ["queue", address, () => element("a", { href: address }, "Review queue")];
    nav.show(address ? [review, inPlace, open] : [review, open]);
  };
  const fail = (why) => {
    const text = `No link to the review queue: ${why}`;
    nav.show([review, open, ["failure", text, () => failure("links-again", text, queue.again)]]);
  };
  queue.want(`${project.id} ${done?.version}`, async () => (await ask(`projects/${project.id}/links`)).queue, show, fail);
}

/** Do something, and look at once at what came of it. */
async function act(method, path, body) {
  try {
    await tell(method, path, body);
  } catch (error) {
    if (!(error instanceof Unreachable)) await refused(error);
  }
  return follow();
}
