// What happened to one mask: a dialog that opens from its picture.

import { ask } from "./api.js";
import { element, fill, percent, picture } from "./elements.js";
import { failure, words } from "./load.js";

const SOURCES = {
  foundation: "the foundation model",
  imported: "an import",
  human: "people",
  corrector: "the corrector",
};

let dialog;
let asked = 0;

/** Open the dialog of a mask as it was in a round. */
export async function openLineage(project, round, { task_id, region_id }) {
  dialog ??= make();
  dialog.querySelector("h2").textContent = `Mask ${region_id} of task ${task_id}`;
  const opener = document.activeElement?.id;
  dialog.addEventListener("close", () => document.getElementById(opener)?.focus(), { once: true });
  dialog.showModal();
  await look(project, round, { task_id, region_id });
}

async function look(project, round, mask) {
  const mine = ++asked;
  const { task_id, region_id } = mask;
  const body = dialog.querySelector(".body");
  fill(body, element("p", { class: "quiet", role: "status" }, "Looking it up …"));
  let children;
  try {
    const said = await ask(`projects/${project}/masks/${task_id}/${encodeURIComponent(region_id)}?round=${round}`);
    children = shown(said, round);
  } catch (error) {
    children = [failure("lineage-again", words(error), () => look(project, round, mask))];
  }
  if (mine === asked) fill(body, ...children);
}

function make() {
  const close = element("button", { type: "button", class: "primary", autofocus: "autofocus" }, "Close");
  const made = element(
    "dialog",
    { id: "lineage", "aria-labelledby": "lineage-title" },
    element("header", {}, element("h2", { id: "lineage-title" }), close),
    element("div", { class: "body" }),
  );
  close.addEventListener("click", () => made.close());
  // A click beside the dialog closes it, as Escape does.
  made.addEventListener("click", (event) => event.target === made && made.close());
  document.body.append(made);
  return made;
}

function shown(said, round) {
  const step = said.automatic.find((one) => one.round === round);
  const held = said.held.findLast((one) => one.round <= round) ?? said.held.at(-1);
  const change = step ? `${step.before} → ${step.after}` : held.label;
  const about = element(
    "div",
    {},
    element("p", { class: "change" }, change),
    element("p", {}, step ? verdict(step) : `Its label comes from ${SOURCES[held.source]}.`),
    element("p", {}, element("a", { href: said.label_studio }, `Open task ${said.task_id} in Label Studio`)),
  );
  const large = element("div", { class: "large" }, picture(said.picture, `Mask ${said.region_id} of task ${said.task_id}`));
  return [element("div", { class: "head" }, large, about), ...teachers(said.teaching), ...timeline(said)];
}

function verdict(step) {
  if (step.outcome === "withdrawn") return "The corrector no longer proposes what it had applied.";
  return `The corrector believes in ${step.after} with ${percent(step.belief)} (${step.stratum}): ${step.outcome}.`;
}

function teachers(teaching) {
  if (!teaching) return [];
  const title = element("h3", {}, "The answers that taught it");
  const { label, agreeing, nearest } = teaching;
  const agree = element("p", {}, `Of the ${nearest} answers nearest to this mask, as the corrector sees masks, ${agreeing} ${agreeing === 1 ? "is" : "are"} ${label}. `);
  if (!teaching.teachers.length) {
    return [title, agree, element("p", { class: "quiet" }, `Nobody has called a mask ${label} yet: the first labels alone suggest it.`)];
  }
  agree.append(`The nearest that people called ${label}:`);
  const items = teaching.teachers.map((one) => {
    const said = one.before === one.label ? `${one.label}, confirmed` : `${one.before} → ${one.label}`;
    const text = element("small", {}, `${said}, round ${one.round}`);
    return element("li", {}, picture(one.picture, `Mask ${one.region_id} of task ${one.task_id}`), text);
  });
  return [title, agree, element("ul", { class: "masks teachers" }, ...items)];
}

function timeline(said) {
  const first = element("li", {}, element("b", {}, "At first"), line(`${said.first_label}, from ${SOURCES[said.first_source]}`));
  const numbers = [said.held, said.answers, said.asked, said.automatic].flat().map((one) => one.round);
  const rounds = [...new Set(numbers)].sort((one, other) => one - other).map((number) => happened(said, number));
  return [element("h3", {}, "What happened"), element("ol", { class: "timeline" }, first, ...rounds)];
}

function happened(said, number) {
  const of = (list) => list.filter((one) => one.round === number);
  const held = of(said.held)[0];
  const lines = [
    ...of(said.answers).map((one) => line(`${one.name}: ${answer(one)}`, when(one.made_at))),
    ...of(said.automatic).map((one) => line(`Corrector: ${one.before} → ${one.after}, ${percent(one.belief)}, ${one.outcome}`, one.stratum)),
    ...(held ? [line(`Label: ${held.label}, from ${SOURCES[held.source]}`, held.version)] : []),
    ...of(said.asked).map((one) => line(`Asked as number ${one.rank} of ${one.queued}${hint(one)}`, one.why)),
  ];
  return element("li", {}, element("b", {}, `Round ${number}`), ...lines);
}

function answer(one) {
  if (one.kind === "deleted") return "deleted the mask";
  const change = one.before === one.label ? `kept ${one.label}` : `${one.before} → ${one.label}`;
  return { new: `drew it as ${one.label}`, shape: `${change}, and redrew it` }[one.kind] ?? change;
}

function hint(one) {
  return one.guess === "none" ? "" : `, with the hint ${one.guess}`;
}

function when(text) {
  return new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function line(text, more = "") {
  return element("p", {}, text, more ? element("small", { class: "quiet" }, ` ${more}`) : "");
}
