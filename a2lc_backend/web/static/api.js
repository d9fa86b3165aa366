// Calls of the backend's API.

/** The backend does not answer at all. */
export class Unreachable extends Error {}

let speaker = {};
let stays = () => false;

/** Say with every call whom this page speaks for; in another tab somebody else may log in. */
export function speakFor(person) {
  speaker = { "A2LC-Person": person };
}

/** Do not go to the login when the session is over, as long as `condition()` holds: what the page has would be lost. */
export function stayWhile(condition) {
  stays = condition;
}

/** The backend refuses; `status` is HTTP's. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** End the session, and go to the login. A call that is still on its way must not lead back from there to this page. */
export async function logOut() {
  const before = stays;
  stays = () => true;
  try {
    await tell("POST", "logout");
    location.assign("login");
  } catch (error) {
    stays = before;
    throw error;
  }
}

/** What the API says of a path below /api/. Throws Refused with its words where it refuses. */
export function ask(path) {
  return call("GET", path);
}

/** Have the API do something; `options` are those of fetch. */
export function tell(method, path, body, options = {}) {
  return call(method, path, body ?? undefined, options);
}

async function call(method, path, body, options = {}) {
  const headers = { ...speaker, ...(body !== undefined && { "Content-Type": "application/json" }) };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  let reply;
  try {
    reply = await fetch(`api/${path}`, { method, headers, body: sent, ...options });
  } catch (error) {
    throw new Unreachable(error.message);
  }
  if (reply.ok) return reply.json();
  if (reply.status === 401 && path !== "login" && !stays()) {
    // The session is over; one comes back to where one was.
    const here = location.pathname.slice(new URL(".", document.baseURI).pathname.length);
    location.assign(`login?next=${encodeURIComponent(here + location.hash)}`);
  }
  throw await refusal(reply);
}

/** The words of a reply that refuses, as an error. */
export async function refusal(reply) {
  const said = await reply.json().catch(() => ({}));
  const detail = Array.isArray(said.detail) ? said.detail.map((item) => item.msg).join("; ") : said.detail;
  return Object.assign(new Refused(detail || `${reply.status} ${reply.statusText}`, reply.status), { detail: said.detail });
}
