// Calls of the backend's API.

/** The backend does not answer at all. */
export class Unreachable extends Error {}

/** What the API says of a path below /api/. Throws Error with its words where it refuses. */
export function ask(path) {
  return call("GET", path);
}

/** Have the API do something. */
export function tell(method, path, body) {
  return call(method, path, body ?? undefined);
}

async function call(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let reply;
  try {
    reply = await fetch(`api/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    throw new Unreachable(error.message);
  }
  if (reply.ok) return reply.json();
  const said = await reply.json().catch(() => ({}));
  const detail = Array.isArray(said.detail) ? said.detail.map((item) => item.msg).join("; ") : said.detail;
  throw new Error(detail || `${reply.status} ${reply.statusText}`);
}
