// The projects with masks to review; where there is only one, one is there at once.

const said = document.getElementById("said");

async function show() {
  const reply = await fetch("../api/review/projects");
  if (reply.status === 401) return location.replace("../login?next=review/");
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).detail || reply.statusText);
  const projects = await reply.json();
  if (projects.length === 1) return location.replace(String(projects[0].id));
  said.textContent = projects.length ? "Choose a project to review:" : "No project has a queue yet; an admin begins one.";
  for (const project of projects) {
    const link = document.createElement("a");
    link.href = String(project.id);
    link.textContent = `${project.title}: ${project.left} of ${project.total} masks are left`;
    const line = document.createElement("li");
    line.append(link);
    document.getElementById("projects").append(line);
  }
}

show().catch((error) => {
  said.textContent = `The backend does not answer (${error.message}). Load the page again when it runs: a2lc serve`;
});
