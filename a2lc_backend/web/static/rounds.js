// How right the labels became round by round, what each round did and how to take it back, and what went wrong.

import { button, sure } from "./controls.js";
import { curve } from "./curve.js";
import { element, percent, row, table } from "./elements.js";

const MOST_PROBLEMS = 200;

/** How right the labels are: the sentences and, from two rounds on, the curve. */
export function quality(finished, pooled) {
  const card = element("section", { "aria-labelledby": "quality" }, element("h2", { id: "quality" }, "How right the labels are"));
  const known = finished.filter((one) => "still_wrong" in one.summary);
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
  if (finished.length > 1) card.append(curve(card, finished));
  return card;
}

/** All rounds, the last one first; `act` does something and looks at the backend again. */
export function history(project, rounds, last, act) {
  const card = element("section", { class: "wide", "aria-labelledby": "rounds" }, element("h2", { id: "rounds" }, "Rounds"));
  if (!rounds.length) {
    card.append(element("p", { class: "quiet" }, "Round 0 labels every mask; begin it above."));
    return card;
  }
  const ended = ["done", "cancelled"].includes(last.status);
  const rows = rounds.toReversed().map((one) => {
    const counts = ["queued", "answered", "changed_by_people", "changed_by_corrector", "undone"].map((name) => one.summary[name] ?? "");
    return row(`${one.number}`, one.status, ...counts, one.version, takeBack(project, one, ended, act));
  });
  card.append(
    table(["Round", "Status", "Queued", "Answered", "By people", "By corrector", "Taken back", "Version", ""], rows),
  );
  return card;
}

function takeBack(project, one, ended, act) {
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

/** What went wrong in a round, task by task. */
export function problems(project, number, found) {
  const rows = found.slice(0, MOST_PROBLEMS).map((item) => {
    const task = item.task_id ? element("a", { href: `${project.label_studio}?task=${item.task_id}` }, `task ${item.task_id}`) : "";
    const line = row(item.phase, task, item.message);
    line.lastChild.className = "said";
    return line;
  });
  return element(
    "section",
    { class: "wide", "aria-labelledby": "problems" },
    element("h2", { id: "problems" }, `Problems of round ${number}: ${found.length}`),
    table(["Phase", "Task", "What, and the mend"], rows),
  );
}
