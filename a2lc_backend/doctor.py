"""Checks each connection of an installation and names the mend of what is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import httpx
from label_studio_sdk.client import LabelStudio

from a2lc_backend.foundation import FoundationError
from a2lc_backend.label_studio import LabelStudioError, LabelStudioProject, connected
from a2lc_backend.perception import Perception
from a2lc_backend.rounds.platform import TaskError
from a2lc_backend.settings import ProjectSettings, Settings, SettingsError
from a2lc_backend.store import Artifacts, Ledger

_IMAGES = 3


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; the message of a broken one ends with the mend."""

    what: str
    healthy: bool
    message: str


def examine(settings: Settings, project_id: int | None) -> Iterator[Finding]:
    """Check the installation, and a project if one is given.

    Args:
        settings: of the installation.
        project_id: of the project, None to check the installation only.
    """
    yield _check("ledger", lambda: _ledger(settings))
    yield _check("artifacts", lambda: _artifacts(settings))
    if settings.redis_url.get_secret_value():
        yield _check("Redis", lambda: _redis(settings))
        yield _check("workers", lambda: _workers(settings))
    yield _check("backend", lambda: _backend(settings))
    reached = _check("Label Studio", lambda: _label_studio(settings))
    yield reached
    if not reached.healthy:
        if not settings.label_studio_api_key.get_secret_value():
            yield _check("token", lambda: _token(settings))
        return
    token = _check("token", lambda: _token(settings))
    yield token
    if not token.healthy or project_id is None:
        return
    with connected(settings.label_studio_url, settings.label_studio_api_key.get_secret_value()) as client:
        yield from _examine_project(settings, client, project_id)


def _examine_project(settings: Settings, client: LabelStudio, project_id: int) -> Iterator[Finding]:
    project = LabelStudioProject(client, settings.label_studio_url, project_id, settings.image_limits)
    config = _check(f"project {project_id}", lambda: _config(project))
    yield config
    if not config.healthy:
        return
    yield _check("connection", lambda: _connection(settings, client, project_id))
    chosen = _check("settings of the project", lambda: _project_settings(settings, project))
    yield chosen
    if chosen.healthy:
        yield _check("models", lambda: _models(settings, project))
    yield _check("images", lambda: _images(project))


class _BrokenError(RuntimeError):
    """A check failed; the message names the mend."""


def _check(what: str, run: Callable[[], str]) -> Finding:
    try:
        return Finding(what, healthy=True, message=run())
    except (_BrokenError, LabelStudioError, TaskError, SettingsError, FoundationError) as error:
        return Finding(what, healthy=False, message=str(error))
    except Exception as error:  # a doctor that falls ill helps nobody
        return Finding(what, healthy=False, message=f"{type(error).__name__}: {error}")


def _ledger(settings: Settings) -> str:
    try:
        ledger = Ledger(settings.ledger_url)
    except Exception as error:
        mend = (
            "see that the database runs, and that A2LC_DATABASE_URL has its host, name, user and password"
            if settings.database_url
            else "set A2LC_DATA_DIR to a writable folder, or A2LC_DATABASE_URL"
        )
        raise _BrokenError(f"{str(error).splitlines()[0]}; {mend}") from error
    with closing(ledger):
        count = len(ledger.projects())
    return f"{count} {'project' if count == 1 else 'projects'} in {ledger.url.split('@')[-1]}"


def _artifacts(settings: Settings) -> str:
    try:
        artifacts = Artifacts(settings.artifact_url)
        artifacts.write("doctor", b"written")
        artifacts.read("doctor")
        artifacts.delete("doctor")
    except Exception as error:
        raise _BrokenError(f"{error}; set A2LC_ARTIFACTS_URL to an address that can be written") from error
    return settings.artifact_url


def _redis(settings: Settings) -> str:
    from redis.exceptions import RedisError  # noqa: PLC0415 - only who uses Redis loads it

    from a2lc_backend.jobs.redis_queue import open_redis  # noqa: PLC0415

    url = settings.redis_url.get_secret_value()
    try:
        open_redis(url).ping()
    except (RedisError, ValueError) as error:
        raise _BrokenError(f"{error}; start Redis, or set A2LC_REDIS_URL to its address") from error
    return "answers"


def _workers(settings: Settings) -> str:
    from a2lc_backend.jobs.redis_queue import listening, missing_workers  # noqa: PLC0415

    with closing(Ledger(settings.ledger_url)) as ledger:
        if missing := missing_workers(ledger):
            raise _BrokenError(missing)
        return ", ".join(f"{count} on {queue}" for queue, count in sorted(listening(ledger).items()))


def _backend(settings: Settings) -> str:
    try:
        reply = httpx.get(f"{settings.own_url}/health", timeout=5)
    except httpx.HTTPError as error:
        raise _BrokenError(
            f"nothing answers at {settings.own_url} ({type(error).__name__}); start `a2lc serve`, or set A2LC_URL"
        ) from error
    if reply.status_code != 200:
        raise _BrokenError(f"{settings.own_url}/health answers {reply.status_code}: {reply.text[:200]}")
    return f"answers at {settings.own_url}"


def _label_studio(settings: Settings) -> str:
    url = settings.label_studio_url.rstrip("/")
    try:
        reply = httpx.get(f"{url}/health", timeout=10, follow_redirects=True)
    except httpx.HTTPError as error:
        raise _BrokenError(
            f"nothing answers at {url} ({type(error).__name__}); start Label Studio, or set LABEL_STUDIO_URL"
        ) from error
    if reply.status_code != 200:
        raise _BrokenError(f"{url}/health answers {reply.status_code}; set LABEL_STUDIO_URL to Label Studio's address")
    return f"answers at {url}"


def _token(settings: Settings) -> str:
    from a2lc_backend.label_studio.client import explained  # noqa: PLC0415

    url = settings.label_studio_url
    token = settings.label_studio_api_key.get_secret_value()
    with connected(url, token) as client, explained(url, "asking who the token belongs to"):
        user = client.users.whoami()
    return f"belongs to {user.email}"


def _config(project: LabelStudioProject) -> str:
    info = project.project()
    return f"{info.title!r}, {project.config.kind}, {len(info.classes)} classes"


def _connection(settings: Settings, client: LabelStudio, project_id: int) -> str:
    from a2lc_backend.label_studio.client import explained  # noqa: PLC0415
    from a2lc_backend.label_studio.connect import carries, webhooks_of  # noqa: PLC0415

    again = f"run `a2lc connect --project {project_id}` again"
    with explained(settings.label_studio_url, f"reading the connections of project {project_id}"):
        backends = [
            item for item in client.ml.list(project=project_id) if (item.url or "").rstrip("/") == settings.own_url
        ]
        hooks = webhooks_of(client, project_id, settings.own_url)
    if not backends:
        raise _BrokenError(
            f"{settings.own_url} is not connected; run `a2lc connect --project {project_id}`, or add it in "
            "Settings > Model. If Label Studio refuses the address, start it with USE_DEFAULT_BANNED_SUBNETS=false"
        )
    if (backends[0].basic_auth_user or "") != settings.callers.user:
        raise _BrokenError(f"Label Studio does not show A2LC_BASIC_AUTH_USER when it calls; {again}")
    state = getattr(backends[0].state, "value", backends[0].state)
    if state == "ER":
        reason = backends[0].error_message or "no reason given"
        if "401" in reason:
            raise _BrokenError(f"Label Studio shows another password than A2LC_BASIC_AUTH_PASSWORD; {again}")
        raise _BrokenError(
            f"Label Studio cannot reach {settings.own_url} ({reason[:200]}); check A2LC_URL; start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false if it refuses private addresses"
        )
    if not hooks:
        raise _BrokenError(
            "the webhook is missing, so Start Training is not heard; start Label Studio with "
            f"USE_DEFAULT_BANNED_SUBNETS=false, remove the backend in Settings > Model and run "
            f"`a2lc connect --project {project_id}` again"
        )
    if not all(carries(hook, settings.callers.webhook) for hook in hooks):
        raise _BrokenError(f"a webhook does not carry A2LC_WEBHOOK_SECRET, so nothing is heard; {again}")
    return f"ML backend {backends[0].id}, webhook {hooks[0].id}"


def _project_settings(settings: Settings, project: LabelStudioProject) -> str:
    chosen = settings.project(project.extra_params(settings.own_url))
    changed = {
        name: value
        for name, value in chosen.model_dump().items()
        if value != ProjectSettings.model_fields[name].get_default(call_default_factory=True)
    }
    return ", ".join(f"{name} {value!r}" for name, value in changed.items()) or "all as they are by default"


def _models(settings: Settings, project: LabelStudioProject) -> str:
    chosen = settings.project(project.extra_params(settings.own_url))
    with closing(Ledger(settings.ledger_url)) as ledger:
        perception = Perception(settings, Artifacts(settings.artifact_url), ledger)
        names = perception.needed(chosen)
        clicks = perception.clicked_name(chosen)
    problems = []
    for name in dict.fromkeys([*names, *([clicks] if clicks else [])]):
        try:
            perception.weights.path(name)
        except FoundationError as error:
            problems.append(str(error))
    if problems:
        raise _BrokenError("; ".join(problems))
    rounds = f"rounds ask {', '.join(names)}" if names else "rounds ask no foundation model"
    if clicks:
        return f"{rounds}; {clicks} answers smart tools"
    why = "A2LC_CLICKS is off" if settings.clicks == "off" else "for them: a2lc weights fetch sam-vit-b"
    return f"{rounds}; smart tools are not answered ({why})"


def _images(project: LabelStudioProject) -> str:
    tasks = project.tasks()
    if not tasks:
        raise _BrokenError("the project has no tasks; import images")
    problems = []
    for task in tasks[:_IMAGES]:
        try:
            project.image(task)
        except TaskError as error:
            problems.append(f"task {task.id}: {error}")
    if problems:
        raise _BrokenError("; ".join(problems))
    return f"{min(len(tasks), _IMAGES)} of {len(tasks)} fetched and read"
