// The settings of a project: a form made of what the API says of them, and who changed what.

import { ask, tell } from "./api.js";
import { button, dialogOf, sure } from "./controls.js";
import { element, fill, row, table } from "./elements.js";
import { failure, Load, words } from "./load.js";

const FIRST = [
  "budget", "policy", "precision", "auto_round", "explore", "audit", "second_opinion", "regions_shown", "annotators", "review",
  "whole_image",
];

const ORIGINS = { default: "default", installation: "set by the installation", project: "set for this project" };

const { dialog, title, body } = dialogOf("settings");
let opened = 0; // how often settings were asked for; what was saved for an earlier time comes back too late
let unsaved = () => false;
const load = new Load();

dialog.addEventListener("close", () => load.stop());

// One may have pressed Escape by mistake.
dialog.addEventListener("cancel", (event) => {
  event.preventDefault();
  close();
});

/** Show the settings of a project. */
export function openSettings(project) {
  opened += 1;
  unsaved = () => false;
  title.textContent = `Settings of ${project.title}`;
  fill(body, element("p", { "aria-live": "polite" }, "Reading them from Label Studio …"));
  if (!dialog.open) dialog.showModal();
  const at = `projects/${project.id}/settings`;
  let changes = null; // these need no Label Studio
  const get = async () => {
    changes = await ask(`${at}/history`);
    return ask(at);
  };
  const fail = (why) => {
    if (body.dataset.why === why && body.querySelector(".failure")) return; // it failed once more
    body.dataset.why = why;
    const known = changes ? history(changes) : "";
    fill(body, failure("settings-again", why, load.again), known, element("menu", {}, closing()));
  };
  load.stop();
  return load.want("settings", get, (form) => show(project, form, changes, ""), fail);
}

const closing = () => button("settings-close", "Close", close);

async function close() {
  const mine = opened;
  const text = "Some settings were changed here and are not saved.";
  if (unsaved() && !(await sure("Leave without saving?", text, "Leave"))) return;
  if (mine === opened) dialog.close();
}

function show(project, form, changes, said) {
  const fields = new Map(form.fields.map((field) => [field.name, fieldOf(field)]));
  const first = FIRST.filter((name) => fields.has(name));
  const others = [...fields.keys()].filter((name) => !first.includes(name));
  const wrong = element("p", { class: "bad", role: "alert" });
  const dropped = new Set(); // what is no setting, and goes with the next save
  const unknown = Object.entries(form.unknown).map(([name, value]) => unknownOf(name, value, dropped));
  const changed = () => [...fields.values()].filter((field) => field.changed());
  unsaved = () => dropped.size > 0 || changed().length > 0;
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
    for (const field of fields.values()) field.complain("");
    const unreadable = changed().filter((field) => !field.isReadable());
    for (const field of unreadable) field.complain("This is not a number.");
    wrong.textContent = "";
    if (unreadable.length) unreadable[0].input.focus();
    else if (!unsaved()) wrong.textContent = "Nothing was changed.";
    else save(project, fields, wrong, values(changed(), dropped));
  });
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

/** What to send: null gives a setting back to the installation, or drops what is none. */
function values(changed, dropped) {
  const said = [...changed.map((field) => [field.name, field.read()]), ...[...dropped].map((name) => [name, null])];
  return Object.fromEntries(said);
}

async function save(project, fields, wrong, values) {
  const mine = opened;
  const at = `projects/${project.id}/settings`;
  try {
    const form = await tell("PUT", at, { settings: values });
    const changes = await ask(`${at}/history`);
    if (mine !== opened) return;
    show(project, form, changes, "Saved: they hold from the next round on.");
    dialog.scrollTop = 0;
  } catch (error) {
    if (mine !== opened) return;
    const found = Array.isArray(error.detail) ? error.detail : [];
    const known = found.filter((item) => fields.has(item.loc.at(-1)));
    for (const item of known) fields.get(item.loc.at(-1)).complain(item.msg);
    const others = found.filter((item) => !known.includes(item)).map((item) => item.msg);
    wrong.textContent = found.length ? others.join("; ") : words(error);
    if (known.length) fields.get(known[0].loc.at(-1)).input.focus();
  }
}

/** A line about what Label Studio holds and is no setting, and what marks it to go. */
function unknownOf(name, value, dropped) {
  const drop = element("button", { id: `drop-${name}`, type: "button", "aria-pressed": "false" }, "Drop it");
  drop.addEventListener("click", () => {
    if (!dropped.delete(name)) dropped.add(name);
    drop.setAttribute("aria-pressed", String(dropped.has(name)));
    drop.textContent = dropped.has(name) ? "Goes when you save" : "Drop it";
  });
  return element("p", { class: "bad" }, `Label Studio holds ${name} = ${JSON.stringify(value)}, which is no setting. `, drop);
}

/** One field: its row, its input, and what stands in it. */
function fieldOf(field) {
  const id = `setting-${field.name}`;
  const input = inputOf(field, id);
  const why = element("p", { class: "bad", id: `${id}-why` });
  const isNumber = ["integer", "number"].includes(field.kind);
  const reset = element("button", { id: `${id}-reset`, type: "button" }, `Use ${JSON.stringify(field.installed)} again`);
  const mark = element("span", { class: "quiet", role: "status" });
  let isReset = false;
  const read = () => {
    if (isReset) return null;
    if (field.kind === "boolean") return input.checked;
    return isNumber ? Number(input.value) : input.value;
  };
  // An empty field, or one with letters, reads as 0.
  const isReadable = () => isReset || !isNumber || (input.value !== "" && !input.validity.badInput);
  const before = JSON.stringify(read());
  const row = element(
    "div",
    { class: "setting" },
    element("label", { for: id }, named(field.name)),
    element("span", { class: "actions" }, input, field.origin === "project" ? reset : "", mark),
    element("p", { class: "quiet", id: `${id}-help` }, ...spelled(field.help), ` (${ORIGINS[field.origin]})`),
    why,
  );
  input.setAttribute("aria-describedby", `${id}-help ${id}-why`);
  const complain = (text) => {
    why.textContent = text;
    if (text && row.closest("details")) row.closest("details").open = true;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  const turnBack = (whether) => {
    isReset = whether;
    reset.hidden = whether;
    mark.textContent = whether ? "Given back when you save" : "";
  };
  reset.addEventListener("click", () => {
    set(input, field.kind, field.installed);
    complain("");
    turnBack(true);
    input.focus();
  });
  input.addEventListener("input", () => turnBack(false));
  return { name: field.name, row, input, read, complain, isReadable, changed: () => !isReadable() || JSON.stringify(read()) !== before };
}

function set(input, kind, value) {
  if (kind === "boolean") input.checked = value;
  else input.value = value;
}

function inputOf(field, id) {
  if (field.kind === "choice") {
    const made = element("select", { id }, ...field.choices.map((one) => element("option", { value: one }, one)));
    made.value = field.value;
    return made;
  }
  const type = { boolean: "checkbox", integer: "number", number: "number", text: "text" }[field.kind];
  const made = element("input", { id, type, min: field.least ?? "", max: field.most ?? "", step: field.kind === "number" ? "any" : "" });
  set(made, field.kind, field.value);
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
