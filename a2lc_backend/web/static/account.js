// Who is logged in, and the way out.

import { ask, logOut } from "./api.js";
import { element, fill } from "./elements.js";

/** Show in a place of the page who is logged in; nothing where nobody has to. `before` is done before one leaves. */
export async function showAccount(place, before = () => {}) {
  const me = await ask("me").catch(() => null);
  if (!me?.email) return;
  const leave = element("button", { type: "button" }, "Log out");
  leave.addEventListener("click", async () => {
    leave.disabled = true;
    place.querySelector("[role=alert]")?.remove();
    try {
      await before();
      await logOut();
    } catch (error) {
      // Who believes to be logged out leaves the room to the next person.
      place.append(element("span", { class: "bad", role: "alert" }, `You are still logged in: ${error.message}`));
      leave.disabled = false;
    }
  });
  fill(place, element("span", { title: me.email }, me.name), leave);
}
