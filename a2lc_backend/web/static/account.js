// Who is logged in, and the way out.

import { ask, tell } from "./api.js";
import { element, fill } from "./elements.js";

/** Show in a place of the page who is logged in; nothing where nobody has to. `before` is done before one leaves. */
export async function showAccount(place, before = () => {}) {
  const me = await ask("me").catch(() => null);
  if (!me?.email) return;
  const leave = element("button", { type: "button" }, "Log out");
  leave.addEventListener("click", async () => {
    await before();
    await tell("POST", "logout").catch(() => {});
    location.assign("login");
  });
  fill(place, element("span", { title: me.email }, me.name), leave);
}
