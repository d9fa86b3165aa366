"""The settings of a project as a form: what they mean, what holds and why, and their history.

What a project sets of its own is kept in one place, the "extra params" of the ML backend in Label Studio.
"""

from __future__ import annotations

import inspect
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, SettingsError
from a2lc_backend.store import SettingChange

IN_LABEL_STUDIO = -1
"""Stands for the person, where a setting was changed in Label Studio."""

Kind = Literal["integer", "number", "boolean", "choice", "text"]
Origin = Literal["default", "installation", "project"]

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: of the extra param.
        environment: variable that sets it for the installation.
        help: what it is, in words.
        kind: of its value.
        choices: values it may have, of a `choice`.
        least: value allowed, None for any.
        most: value allowed, None for any.
        default: of the program.
        installed: what holds where a project says nothing.
        value: what holds in this project.
        origin: who says so.
    """

    name: str
    environment: str
    help: str
    kind: Kind
    choices: tuple[str, ...]
    least: float | None
    most: float | None
    default: Any
    installed: Any
    value: Any
    origin: Origin


@dataclass(frozen=True)
class Form:
    """Every setting of a project.

    Attributes:
        fields: in the order of `ProjectSettings`.
        problem: why the next round would refuse them, with the mend; empty when it would not.
        unknown: what the extra params hold that is no setting.
    """

    fields: tuple[Field, ...]
    problem: str
    unknown: dict[str, Any]


class WrongSettingsError(ValueError):
    """Some values cannot be; `fields` says of each why, "" stands for all together."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" if name else why for name, why in fields.items()))
        self.fields = dict(fields)


class SettingsDesk:
    """Reads and changes the settings of projects.

    Args:
        service: of the installation.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()  # what is being saved here is not taken for a change in Label Studio

    def form(self, project_id: int) -> Form:
        """What holds in a project now.

        Raises:
            PlatformError: if Label Studio cannot be used.
        """
        with self._lock:
            own = self._read(project_id)
            self._notice(project_id, own)
        return self._form(own)

    def change(self, project_id: int, changes: Mapping[str, Any], person: int) -> Form:
        """Set settings of a project; they hold from the next round on.

        Args:
            project_id: of the project.
            changes: new values by name; None gives a setting back to the installation.
            person: who wants it, by user id.

        Raises:
            WrongSettingsError: if the project could not run with them; nothing is changed.
            PlatformError: if Label Studio cannot be used.
        """
        with self._lock:
            own = self._read(project_id)
            self._notice(project_id, own)
            wanted = {name: value for name, value in (own | dict(changes)).items() if value is not None}
            try:
                held = self._service.settings.project(wanted).model_dump()
                wanted |= {name: held[name] for name in changes if name in wanted}
            except SettingsError as error:
                raise WrongSettingsError(_by_field(error)) from error
            if wanted != own:
                self._service.present(project_id).save_extra_params(self._service.settings.own_url, wanted)
                self._write_down(project_id, own, wanted, person)
        return self._form(wanted)

    def history(self, project_id: int) -> list[dict[str, Any]]:
        """Who changed what, the latest first."""
        people = self._service.ledger.people()
        names = {0: "", IN_LABEL_STUDIO: "in Label Studio"} | {person.id: person.name for person in people.values()}
        return [
            {
                "name": change.name, "before": change.before, "after": change.after, "changed_at": change.changed_at,
                "person": change.person, "who": names.get(change.person, f"user {change.person}"),
            }
            for change in self._service.ledger.setting_changes(project_id)
        ]  # fmt: skip

    def _read(self, project_id: int) -> dict[str, Any]:
        return self._service.present(project_id).extra_params(self._service.settings.own_url)

    def _notice(self, project_id: int, own: Mapping[str, Any]) -> None:
        """Write down what was changed in Label Studio since the last look."""
        known: dict[str, Any] = {}
        for change in reversed(self._service.ledger.setting_changes(project_id)):
            known[change.name] = change.after
        self._write_down(project_id, known, own, IN_LABEL_STUDIO)

    def _write_down(self, project_id: int, before: Mapping[str, Any], after: Mapping[str, Any], person: int) -> None:
        now = time.time()
        changes = [
            SettingChange(name, before.get(name), after.get(name), person, now)
            for name in ProjectSettings.model_fields
            if before.get(name) != after.get(name)
        ]
        self._service.ledger.add_setting_changes(project_id, changes)

    def _form(self, own: Mapping[str, Any]) -> Form:
        installed = self._service.settings.project().model_dump()
        try:
            held, problem = self._service.settings.project(dict(own)).model_dump(), ""
        except SettingsError as error:
            held, problem = installed | {name: own[name] for name in own if name in installed}, str(error)
        fields = tuple(
            _field(name, schema, installed[name], held[name], name in own)
            for name, schema in ProjectSettings.model_json_schema()["properties"].items()
        )
        return Form(fields, problem, {name: value for name, value in own.items() if name not in installed})


def _field(name: str, schema: Mapping[str, Any], installed: Any, value: Any, own: bool) -> Field:
    choices = tuple(schema.get("enum", ()))
    kind: Kind = "choice" if choices else "text" if schema["type"] == "string" else schema["type"]
    origin: Origin = "project" if own else "installation" if installed != schema["default"] else "default"
    return Field(
        name, f"A2LC_{name.upper()}", _HELP.get(name, ""), kind, choices,
        schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", schema.get("exclusiveMaximum")),
        schema["default"], installed, value, origin,
    )  # fmt: skip


def _by_field(error: SettingsError) -> dict[str, str]:
    """What is wrong with each field, as the model says it."""
    if not isinstance(error.__cause__, ValidationError):
        return {"": str(error)}
    return {
        ".".join(str(part) for part in item["loc"]): item["msg"].removeprefix("Value error, ")
        for item in error.__cause__.errors()
    }


def _help(model: type) -> dict[str, str]:
    """What a class says of its attributes in its docstring."""
    said = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    return {name: re.sub(r"\s+", " ", text) for name, text in _ATTRIBUTE.findall(said)}


_HELP = _help(ProjectSettings)
