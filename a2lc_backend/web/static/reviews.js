// The projects with masks to review; where there is only one, one is there at once.

import { ask } from "./api.js";
import { at, element, fill, put } from "./elements.js";
import { failure, Load } from "./load.js";

const load = new Load();
load.want("projects", () => ask("review/projects"), show, (why) => {
  put("said", "");
  fill(at("projects"), element("li", {}, failure("again", `${why} This page goes on by itself.`, load.again)));
});

function show(projects) {
  if (projects.length === 1) {
    location.replace(`review/${projects[0].id}`);
    return;
  }
  put("said", projects.length ? "Choose a project to review:" : "No project has a queue yet; an admin begins one.");
  const links = projects.map(({ id, title, left, total }) =>
    element("a", { href: `review/${id}` }, `${title}: ${left} of ${total} masks are left`),
  );
  fill(at("projects"), ...links.map((link) => element("li", {}, link)));
}
