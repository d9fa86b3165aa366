// The settings of a project: a form made of what the API says of them, and who changed what.

import { ask, tell } from "./api.js";
import { button, dialogOf } from "./controls.js";
import { element, fill, row, table } from "./elements.js";

const FIRST = [
  "budget", "policy", "precision", "auto_round", "explore", "audit", "second_opinion", "regions_shown", "annotators", "review",
  "whole_image",
];

const ORIGINS = { default: "default", installation: "set by the installation", project: "set for this project" };

const { dialog, title, body } = dialogOf("settings");

/** Show the settings of a project. */
export async function openSettings(project) {
  title.textContent = `Settings of ${project.title}`;
  fill(body, element("p", { "aria-live": "polite" }, "Reading them from Label Studio …"));
  if (!dialog.open) dialog.showModal();
  try {
    const [form, changes] = await Promise.all([
      ask(`projects/${project.id}/settings`),
      ask(`projects/${project.id}/settings/history`),
    ]);
    show(project, form, changes, "");
  } catch (error) {
    const again = button("settings-again", "Try again", () => openSettings(project));
    fill(body, element("p", { class: "bad", role: "alert" }, error.message), element("menu", {}, closing(), again));
  }
}

const closing = () => button("settings-close", "Close", () => dialog.close());

function show(project, form, changes, said) {
  const fields = new Map(form.fields.map((field) => [field.name, fieldOf(field)]));
  const first = FIRST.filter((name) => fields.has(name));
  const others = [...fields.keys()].filter((name) => !first.includes(name));
  const wrong = element("p", { class: "bad", role: "alert" });
  const send = (values) => save(project, fields, wrong, values);
  const unknown = Object.entries(form.unknown).map(([name, value]) =>
    element(
      "p",
      { class: "bad" },
      `Label Studio holds ${name} = ${JSON.stringify(value)}, which is no setting. `,
      button(`drop-${name}`, "Drop it", () => send({ [name]: null })),
    ),
  );
  const made = element(
    "form",
    { novalidate: "novalidate" },
    ...first.map((name) => fields.get(name).row),
    element("details", {}, element("summary", {}, "Masks, models and training"), ...others.map((name) => fields.get(name).row)),
    wrong,
    element("menu", {}, closing(), element("button", { type: "submit", class: "primary" }, "Save")),
  );
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const changed = [...fields].filter(([, field]) => field.changed());
    send(Object.fromEntries(changed.map(([name, field]) => [name, field.read()])));
  });
  for (const field of fields.values()) field.reset.addEventListener("click", () => send({ [field.name]: null }));
  fill(
    body,
    element("p", { class: "quiet" }, "They hold from the next round on. Label Studio keeps them, as extra params of this backend."),
    element("p", { role: "status", class: "good" }, said),
    form.problem ? element("p", { class: "bad" }, `The next round would refuse these: ${form.problem}`) : "",
    ...unknown,
    made,
    history(changes),
  );
}

async function save(project, fields, wrong, values) {
  for (const field of fields.values()) field.complain("");
  wrong.textContent = Object.keys(values).length ? "" : "Nothing was changed.";
  if (!Object.keys(values).length) return;
  try {
    const form = await tell("PUT", `projects/${project.id}/settings`, { settings: values });
    show(project, form, await ask(`projects/${project.id}/settings/history`), "Saved: they hold from the next round on.");
    dialog.scrollTop = 0;
  } catch (error) {
    const found = Array.isArray(error.detail) ? error.detail : [];
    const mine = found.filter((item) => fields.has(item.loc.at(-1)));
    for (const item of mine) fields.get(item.loc.at(-1)).complain(item.msg);
    const others = found.filter((item) => !mine.includes(item)).map((item) => item.msg);
    wrong.textContent = found.length ? others.join("; ") : error.message;
    if (mine.length) fields.get(mine[0].loc.at(-1)).input.focus();
  }
}

/** One field: its row, its input, and what stands in it. */
function fieldOf(field) {
  const id = `setting-${field.name}`;
  const input = inputOf(field, id);
  const why = element("p", { class: "bad", id: `${id}-why` });
  const reset = button(`${id}-reset`, `Use ${JSON.stringify(field.installed)} again`, () => {});
  const read = () => {
    if (field.kind === "boolean") return input.checked;
    if (["integer", "number"].includes(field.kind)) return input.value === "" ? null : Number(input.value);
    return input.value;
  };
  const before = JSON.stringify(read());
  const row = element(
    "div",
    { class: "setting" },
    element("label", { for: id }, named(field.name)),
    element("span", { class: "actions" }, input, field.origin === "project" ? reset : ""),
    element("p", { class: "quiet", id: `${id}-help` }, ...spelled(field.help), ` (${ORIGINS[field.origin]})`),
    why,
  );
  input.setAttribute("aria-describedby", `${id}-help ${id}-why`);
  const complain = (text) => {
    why.textContent = text;
    if (text && row.closest("details")) row.closest("details").open = true;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  return { name: field.name, row, input, reset, read, complain, changed: () => JSON.stringify(read()) !== before };
}

function inputOf(field, id) {
  if (field.kind === "choice") {
    const made = element("select", { id }, ...field.choices.map((one) => element("option", { value: one }, one)));
    made.value = field.value;
    return made;
  }
  const type = { boolean: "checkbox", integer: "number", number: "number", text: "text" }[field.kind];
  const made = element("input", { id, type, min: field.least ?? "", max: field.most ?? "", step: field.kind === "number" ? "any" : "" });
  if (field.kind === "boolean") made.checked = field.value;
  else made.value = field.value;
  return made;
}

const named = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

/** Help with its `words of code` as such. */
const spelled = (text) => text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));

function history(changes) {
  const text = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const rows = changes.map(({ name, before, after, who, changed_at }) =>
    row(named(name), text(before), text(after), who || "a program", new Date(1000 * changed_at).toLocaleString()),
  );
  const none = element("p", { class: "quiet" }, "Nothing has been changed yet.");
  return element(
    "section",
    { class: "plain", "aria-labelledby": "settings-history" },
    element("h3", { id: "settings-history" }, "History"),
    changes.length ? table(["Setting", "From", "To", "By", "When"], rows) : none,
  );
}
