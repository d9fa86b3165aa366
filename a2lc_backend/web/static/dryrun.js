// The dialog before a next round: a dry run of what it would change, then its beginning.

import { ask, tell } from "./api.js";
import { button, dialogOf } from "./controls.js";
import { element, fill, percent, picture } from "./elements.js";
import { failure, words } from "./load.js";
import { left } from "./words.js";

const POLL_MS = 500;

const PHASES = {
  answers: "Taking over what people answered",
  masks: "Reading masks that people edited",
  corrector: "Training the corrector",
};

const { dialog, title, body } = dialogOf("dryrun");
const found = element("div", { class: "found", "aria-live": "polite" });
let opened = 0;

/** Show what round `number` of a project would change; `begin` is called with the budget that is wanted, or null. */
export function openDryRun(project, number, begin) {
  opened += 1;
  title.textContent = `Round ${number}: what it would change by itself`;
  const budget = element("input", { id: "budget", type: "number", min: 1, placeholder: "as set" });
  const go = async () => {
    if (!budget.reportValidity()) return;
    dialog.close();
    await begin(budget.value ? Number(budget.value) : null);
  };
  const foot = element(
    "menu",
    {},
    element("label", { for: "budget" }, "masks to queue"),
    budget,
    button("dryrun-close", "Close", () => dialog.close()),
    button("begin", `Begin round ${number}`, go, false, "primary"),
  );
  const why = "A dry run changes nothing. One need not wait for it.";
  fill(body, element("p", { class: "quiet" }, why), found, foot);
  dialog.showModal();
  run(project, opened);
}

/** Have a dry run done and follow it, as long as this very dialog is open. */
async function run(project, mine) {
  const at = `projects/${project.id}/rounds/preview`;
  fill(found, element("p", {}, PHASES.answers), element("progress", { "aria-label": "Dry run" }));
  try {
    let state = await tell("POST", at);
    while (state.status === "running" && dialog.open && mine === opened) {
      progress(state);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      state = await ask(at);
    }
    if (mine !== opened || state.status === "running") return;
    if (state.status === "done") show(project, state.result);
    else failed(project, mine, state.error || "The dry run was cut off.");
  } catch (error) {
    if (mine === opened) failed(project, mine, words(error));
  }
}

function progress({ phase, done, total, eta }) {
  const time = eta >= 1 ? `, ${left(eta)}` : "";
  const [text, bar] = found.children;
  const now = `${PHASES[phase]}${time}`;
  if (text.textContent !== now) text.textContent = now;
  if (total) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
}

function failed(project, mine, why) {
  fill(found, failure("dryrun-again", why, () => run(project, mine)));
}

function show(project, { changes, changed, answers, held_back, note }) {
  const most = `${changed} masks would change without a person, after ${answers} answers since the last round.`;
  const rest = held_back ? ` ${held_back} more proposals would be held back.` : "";
  fill(found, element("p", {}, element("strong", {}, most), rest), note ? element("p", { class: "quiet" }, `The corrector proposes nothing: ${note}.`) : "");
  if (!changes.length) return;
  const items = changes.map((change) => {
    const crops = change.samples.map((one) => crop(project, change, one));
    const masks = change.count === 1 ? "1 mask" : `${change.count} masks`;
    return element(
      "li",
      {},
      element("span", {}, `${change.before} → ${change.after}`),
      element("b", {}, masks),
      element("div", { class: "crops" }, ...crops),
    );
  });
  found.append(element("ul", { class: "changes" }, ...items));
}

function crop(project, change, { task, region, confidence, picture: address }) {
  const text = `Mask ${region} of task ${task}: ${change.before}, would be ${change.after}; ${percent(confidence)} sure`;
  return element("a", { href: `${project.label_studio}?task=${task}`, title: text }, picture(`${address}?side=160`, text));
}
