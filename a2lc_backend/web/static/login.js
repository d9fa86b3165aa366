// Log in, and go on to where one came from.

import { tell } from "./api.js";

const trouble = document.getElementById("trouble");

/** Where to go on to: a path of this program, never another host's. */
function next() {
  const asked = new URLSearchParams(location.search).get("next") ?? "";
  const target = new URL(asked, new URL(".", location.href));
  return target.origin === location.origin ? target.href : new URL(".", location.href).href;
}

async function enter(form, body) {
  const button = form.querySelector("button");
  button.disabled = true;
  trouble.hidden = true;
  try {
    await tell("POST", "login", body);
    location.replace(next());
  } catch (error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
    button.disabled = false;
  }
}

const value = (id) => document.getElementById(id).value;

document.getElementById("account").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(event.target, { email: value("email"), password: value("password") });
});

document.getElementById("access").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(event.target, { token: value("token") });
});
