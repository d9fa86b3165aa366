// What an admin says of the corrector's work: a pair of classes, a part of it, or one mask.

import { ask, tell } from "./api.js";
import { button, refused, sure, told } from "./controls.js";
import { element, percent } from "./elements.js";

const WAIT_MS = 700;

/** How sure the corrector is of some proposals, in words; all of them without a band. */
const spelled = (band) => (band ? `${Math.round(100 * band.least)}–${percent(band.most)} sure` : "all");

/**
 * Buttons that choose how sure the corrector is, and those for all masks that are chosen; and how many masks these are.
 * `choose` shows another band; `again` looks at the backend once more.
 */
export async function groupControls({ project, done }, group, band, choose, again) {
  const every = await ask(`projects/${project.id}/proposals/bands?round=${done.number}`);
  const bands = every.filter((one) => one.before === group.before && one.after === group.after);
  const chosen = bands.filter((one) => !band || one.least === band.least);
  const sum = (name) => chosen.reduce((total, one) => total + one[name], 0);
  const count = (one) => one.applied + one.held_back + one.taken_back;
  const choices = [null, ...bands].map((one) => {
    const masks = one ? count(one) : bands.reduce((total, part) => total + count(part), 0);
    const made = button(`band-${one ? one.least : "all"}`, `${spelled(one)}: ${masks}`, () => choose(one));
    made.setAttribute("aria-pressed", String(one?.least === band?.least));
    return made;
  });
  const what = { before: group.before, after: group.after, least: band?.least ?? 0, most: band?.most ?? 1 };
  const name = `${group.before} → ${group.after}`;
  const words = [
    [sum("applied"), (n) => `Reject the ${n} applied`, () => reject(project, done, what, sum("applied"), name, again)],
    [sum("taken_back"), (n) => `Let ${n} hold again`, () => restore(project, done, what, again)],
    [sum("held_back") - sum("approved"), (n) => `Approve the ${n} held back`, (n) => approve(project, done, what, true, n, again)],
    [sum("approved"), (n) => `Withdraw ${n} approvals`, (n) => approve(project, done, what, false, n, again)],
  ];
  const buttons = words.filter(([n]) => n > 0).map(([n, text, work], index) => button(`word-${index}`, text(n), () => work(n)));
  const always = group.approved ? "Withdraw the approval of the pair" : "Approve the pair, always";
  buttons.push(button("word-pair", always, () => approvePair(project, group, !group.approved, again)));
  const parts = [
    element("div", { class: "actions", role: "group", "aria-label": "How sure the corrector is" }, ...choices),
    element("div", { class: "actions" }, ...buttons),
    element("p", { class: "quiet" }, "What is approved is applied from the next round on, if the corrector still proposes it."),
  ];
  return { parts, count: chosen.reduce((total, one) => total + count(one), 0) };
}

/** The button for one mask. */
export function maskControl({ project, done }, item, again) {
  const what = { masks: [{ task: item.task_id, region: item.region_id }] };
  const id = `say-${item.task_id}-${item.region_id}`; // whatever there is to say: who presses it goes on from there
  if (item.state === "applied") {
    return button(id, "Reject", () => reject(project, done, what, 1, `${item.before} → ${item.after}`, again));
  }
  if (item.state === "taken back") return button(id, "Let it hold again", () => restore(project, done, what, again));
  return button(id, item.approved ? "Withdraw" : "Approve", () => approve(project, done, what, !item.approved, 1, again));
}

async function reject(project, done, what, count, name, again) {
  const why = "The labels they had replaced hold again, and are published. No later round gives them anew.";
  if (!(await sure(`Reject ${corrections(count)}: ${name}?`, why, `Reject ${count === 1 ? "it" : `the ${count}`}`))) return;
  const said = await change(project, done, "reject", what);
  if (said) {
    const text = `Taken back: ${corrections(said.corrections)}, ${name}. The labels are being published.`;
    told(text, () => restore(project, done, { masks: said.masks }, again));
  }
  await again();
}

async function restore(project, done, what, again) {
  const said = await change(project, done, "restore", what);
  if (said) told(`In force again: ${corrections(said.corrections)}. The labels are being published.`);
  await again();
}

const corrections = (count) => (count === 1 ? "1 automatic correction" : `${count} automatic corrections`);

/** Take back, or let hold again, once the labels are published that an earlier word has changed. */
async function change(project, done, verb, what) {
  const busy = async () => (await ask(`projects/${project.id}/rounds`)).some((one) => ["running", "cancelling"].includes(one.status));
  while (await busy()) {
    told("This waits until the labels are published that changed before.");
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
  return attempt("POST", `projects/${project.id}/rounds/${done.number}/${verb}`, what);
}

async function approve(project, done, what, approved, count, again) {
  const title = `Approve ${count === 1 ? "this change" : `these ${count} changes`}?`;
  const why = "From the next round on they are applied, whatever audits say, if the corrector still proposes them.";
  if (approved && !(await sure(title, why, "Approve"))) return;
  const at = `projects/${project.id}/rounds/${done.number}/approve`;
  const said = await attempt("POST", at, { ...what, approved });
  if (said) {
    const text = approved ? "approved from the next round on" : "no longer approved";
    told(`${said.masks} masks are ${text}.`, approved ? () => approve(project, done, what, false, count, again) : null);
  }
  await again();
}

async function approvePair(project, { before, after }, approved, again) {
  const why = `From the next round on every proposal of ${before} → ${after} is applied, until that is withdrawn. With the policy “manual” audits may still hold some back.`;
  if (approved && !(await sure(`Approve ${before} → ${after}, always?`, why, "Approve"))) return;
  const said = await attempt("PUT", `projects/${project.id}/proposals/approval`, { before, after, approved });
  if (said) told(`${before} → ${after} is ${approved ? "approved" : "no longer approved"} from the next round on.`);
  await again();
}

async function attempt(method, path, body) {
  try {
    return await tell(method, path, body);
  } catch (error) {
    await refused(error);
    return null;
  }
}
