// Where the round is, and what one may do about it.

import { button, sure } from "./controls.js";
import { openDryRun } from "./dryrun.js";
import { element, fill, row, table } from "./elements.js";
import { Parts } from "./parts.js";
import { duration, left } from "./words.js";

const FIGURES = [
  ["queued", "masks to check"],
  ["answered", "answers counted"],
  ["changed_by_people", "changed by people"],
  ["changed_by_corrector", "changed by the corrector"],
  ["masks", "masks in all"],
  ["tasks_left_out", "images left out"],
];

/** The section of the round that is under way, or was last; `act` does something and looks at the backend again. */
export class Now {
  node = element("section", { "aria-labelledby": "now" });

  #parts = new Parts(this.node);
  #phases = null;
  #act;

  constructor(act) {
    this.#act = act;
  }

  show({ project, last, report }) {
    const under = report && last.status !== "done";
    const status = last ? `Round ${last.number}: ${last.status}` : "No round yet";
    const parts = [["title", status, () => element("h2", { id: "now" }, status)]];
    if (last?.error) parts.push(["error", last.error, () => element("p", { class: "bad" }, last.error)]);
    if (under) parts.push(["phases", last.number, () => (this.#phases = new Phases()).node]);
    if (last?.status === "done") parts.push(["summary", last.summary, () => summary(last.summary)]);
    parts.push(["actions", [last?.number, last?.status], () => actions(project, last, this.#act)]);
    this.#parts.show(parts);
    if (under) this.#phases.show(report.phases);
  }
}

/** The table of phases. It changes every second, so its rows stay and their texts change. */
class Phases {
  node = table(["Phase", "", "Done", "Time"], []);

  #rows = new Map();

  show(phases) {
    for (const phase of phases) {
      let made = this.#rows.get(phase.name);
      if (!made) {
        made = newRow(phase.name);
        this.#rows.set(phase.name, made);
        this.node.querySelector("tbody").append(made.line);
      }
      update(made, phase);
    }
  }
}

function newRow(name) {
  const bar = element("progress", { "aria-label": name });
  const made = { bar, note: element("div", { class: "bad" }), count: element("span"), time: element("span") };
  return { ...made, line: row(name, element("span", {}, bar, made.note), made.count, made.time) };
}

function update({ bar, note, count, time }, phase) {
  const isDone = phase.status === "done";
  bar.max = Math.max(phase.total, 1);
  bar.value = isDone ? bar.max : phase.done;
  const took = phase.ended - phase.started;
  const said = isDone ? (took < 10 ? `${took.toFixed(1)} s` : duration(took)) : phase.eta ? left(phase.eta) : "";
  for (const [place, text] of [[note, phase.note], [count, `${phase.done}/${phase.total}`], [time, said]]) {
    if (place.textContent !== text) fill(place, text);
  }
}

function summary(figures) {
  const known = FIGURES.filter(([name]) => name in figures);
  return element(
    "div",
    { class: "figures" },
    ...known.map(([name, text]) => element("div", {}, element("b", {}, String(figures[name])), text)),
  );
}

function actions(project, last, act) {
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
