"""Writes docs/reference/ from the code: `make docs`; `--check` says what is stale.

Nothing in these pages is written by hand, so that a setting, a command or a call cannot be forgotten there.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import typer
from fastapi import FastAPI, HTTPException
from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from starlette.requests import Request

from a2lc_backend.app import create_app
from a2lc_backend.cli import app as command_line
from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, Settings
from a2lc_backend.store import Person, Session
from a2lc_backend.web.login import COOKIE, Gate
from scripts.reference_label_config import label_config_page

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/reference"

_MADE = "<!-- Made from the code by `make docs`; changes here are lost. -->\n\n"
_COMPUTED = {"data_dir": "a folder `a2lc` among the user's data (Linux: `~/.local/share/a2lc`)"}
"""Defaults that hang on the machine."""


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {
        "settings.md": _MADE + settings_page(),
        "cli.md": _MADE + cli_page(),
        "api.md": _MADE + api_page(),
        "label-config.md": _MADE + label_config_page(),
    }


# Settings


def variable(name: str) -> str:
    """The environment variable of a setting: the first of its aliases, else the prefix and its name."""
    return variables(name)[0]


def variables(name: str) -> list[str]:
    """All environment variables that a setting is read from."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias if isinstance(alias, str) else f"{Settings.model_config['env_prefix']}{name}".upper()]


def settings_page() -> str:
    """Every setting with its variable, type, default and meaning."""
    rows = [
        (_names(name), _type(field), _default(name, field), _meanings(Settings)[name])
        for name, field in Settings.model_fields.items()
        if name not in ProjectSettings.model_fields
    ]
    own = [
        (f"`{name}`", f"`{variable(name)}`", _type(field), _default(name, field), _meanings(ProjectSettings)[name])
        for name, field in ProjectSettings.model_fields.items()
    ]
    return "\n".join([
        "# Settings",
        "",
        "Settings come from the environment, from a file `.env` in the folder that a command is started in, and from a "
        "folder of secrets ([security.md](../security.md)); what stands first here wins. A name that begins with "
        "`A2LC_` and is no setting stops the program, and so does a value that cannot be. `a2lc doctor` shows whether "
        "the settings work.",
        "",
        "## Of the installation",
        "",
        "The same for the backend and every worker, unless the meaning says otherwise.",
        "",
        *_table(("variable", "type", "default", "meaning"), rows),
        "",
        "## Of a project",
        "",
        "The variable holds for all projects. The *extra params* of the ML backend in Label Studio (Settings > Model; "
        'a JSON object such as `{"budget": 400}`), or the form in the control room, change it for one project. A round '
        "keeps the settings that it was begun with.",
        "",
        *_table(("extra param", "variable", "type", "default", "meaning"), own),
        "",
    ])  # fmt: skip


def _names(name: str) -> str:
    first, *others = variables(name)
    return f"`{first}`" + "".join(f"; or `{other}`" for other in others)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each attribute."""
    _, _, listed = cleandoc(model.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", listed, re.M)
    return {name: _by_variables(name, " ".join(text.split())) for name, text in found}


def _by_variables(name: str, text: str) -> str:
    """A meaning that names other settings as people set them, not as the code does."""
    for own in variables(name):
        text = text.replace(f" (`{own}`)", "")
    if name == "secrets_dir":  # speaks of files, which have the names in small letters
        return text
    others = [other for other in Settings.model_fields if other == "url" or ("_" in other and other != name)]
    for other in others:
        text = text.replace(f"`{other}`", f"`{variable(other)}`")
    return text


def _type(field: FieldInfo) -> str:
    """What may be given, for people."""
    kind = _kind(field.annotation)
    limits = {type(item): item for item in field.metadata}
    said = []
    for limit, attribute, words in (
        (annotated_types.Ge, "ge", "at least"), (annotated_types.Gt, "gt", "more than"),
        (annotated_types.Le, "le", "at most"), (annotated_types.Lt, "lt", "less than"),
    ):  # fmt: skip
        if limit in limits:
            said.append(f"{words} {getattr(limits[limit], attribute):,}")
    return ", ".join([kind, *said])


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in {Union, UnionType}:
        return " or ".join(_kind(part) for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is list:
        return _kind(get_args(annotation)[0])
    names: dict[Any, str] = {
        bool: "`true`, `false`", int: "whole number", float: "number", str: "text", SecretStr: "secret text",
        Path: "path",
    }  # fmt: skip
    return names[annotation]


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if name in _COMPUTED or value is PydanticUndefined:
        return _COMPUTED[name]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value in ("", None) else f"`{value}`"


# Commands


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it, groups left out."""
    yield from _commands("a2lc", typer.main.get_command(command_line))


def _commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _commands(f"{words} {name}", inner)


def cli_page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands",
        "",
        "Every command reads the [settings](settings.md), prints its help with `--help`, and ends with the exit status "
        "0 if it did what it says, 1 if not, 2 if it was called wrongly. `-p` may be written for `--project`.",
        "",
    ]
    for words, command in sorted(commands()):
        parts += [f"## {words}", "", _paragraphs(command.help or ""), ""]
        parts += [f"Usage: `{' '.join([words, *command.collect_usage_pieces(_context(command))])}`", ""]
        rows = [_parameter(item) for item in command.params if item.name != "help"]
        if rows:
            parts += [*_table(("argument or option", "type", "default", "meaning"), rows), ""]
    return "\n".join(parts)


def _context(command: Any) -> Any:
    return command.make_context(command.name, [], resilient_parsing=True)


def _parameter(item: Any) -> tuple[str, str, str, str]:
    """The row of an argument or an option."""
    is_argument = item.param_type_name == "argument"
    names = [item.name.upper()] if is_argument else [*item.opts, *item.secondary_opts]
    meaning = item.help or ""
    if item.multiple and "again" not in meaning:
        meaning += " May be given again."
    kind = _kind(item.type_descriptor.annotation)
    if kind == _kind(bool):
        kind = ""
    for limit, words in ((item.min, "at least"), (item.max, "at most")):
        kind += f", {words} {limit:,}" if limit is not None else ""
    default = "" if item.default in (None, "", False) else f"`{item.default}`"
    return ", ".join(f"`{name}`" for name in names), kind, "must be given" if item.required else default, meaning


# API


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every call."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def api_page() -> str:
    """Every call by topic: who may make it, what it takes, what it does."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Settings(data_dir=Path(folder)))
        with closing(service):
            app = create_app(service)
            roles = _roles(service)
            described: dict[str, list[str]] = {}
            for method, path, operation in operations(app):
                said = _call(method, path, operation, roles(method, path))
                described.setdefault((operation.get("tags") or ["Other"])[0], []).extend(said)
            schemas = app.openapi().get("components", {}).get("schemas", {})
    parts = [
        "# API",
        "",
        "HTTP with JSON, at the address of the backend. The same description for programs is `/openapi.json`; `/docs` "
        "shows it in a browser and lets you try it. Programs send an access token of Label Studio: `Authorization: "
        "Token …`. *Anybody* needs none, an *annotator* is whoever has an account in Label Studio, an *admin* owns "
        "`LABEL_STUDIO_API_KEY` or is named in `A2LC_ADMINS`.",
        "",
        "What is refused is answered with `{\"detail\": why}`: 401 and 403 for who may not, 404 for what is not there, "
        "409 for what cannot be now, 422 for what is not understood, 502 where Label Studio does not answer.",
        "",
    ]  # fmt: skip
    for topic, lines in described.items():
        parts += [f"## {topic}", "", *lines]
    parts += ["## Bodies", ""]
    for name, schema in schemas.items():
        if name not in {"HTTPValidationError", "ValidationError"}:
            parts += _schema(name, schema)
    return "\n".join(parts)


def _roles(service: Service) -> Callable[[str, str], str]:
    """Tells who may make a call, by asking the gate as people who are logged in and who are not."""
    gate, secret = Gate(service), "a" * 43
    service.ledger.save_people([Person(2, "Ann", "ann@example.com")])
    key = hashlib.sha256(secret.encode()).hexdigest()
    service.ledger.open_session(Session(key, 2, False, time.time() + 3600))

    def passes(method: str, path: str, cookie: str) -> bool:
        filled = re.sub(r"\{\w+\}", "1", path)
        headers = [(b"cookie", cookie.encode())] if cookie else []
        scope = {"type": "http", "method": method, "path": filled, "query_string": b"", "headers": headers}
        try:
            gate(Request(scope))
        except HTTPException:
            return False
        return True

    def role(method: str, path: str) -> str:
        if passes(method, path, ""):
            return "anybody"
        return "annotator" if passes(method, path, f"{COOKIE}={secret}") else "admin"

    return role


def _call(method: str, path: str, operation: dict[str, Any], role: str) -> list[str]:
    said = [f"### {method} {path}", "", _paragraphs(operation.get("description", "")), "", f"For: {role}."]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        said[-1] += f" Body: {_schema_type(body)}."
    made = [(code, reply) for code, reply in operation["responses"].items() if code.startswith("2")]
    kinds = [kind for _, reply in made for kind in reply.get("content", {}) if kind != "application/json"]
    said[-1] += f" Answers {', '.join(code for code, _ in made)}" + (f", {', '.join(kinds)}." if kinds else ".")
    rows = [
        (f"`{item['name']}`", _schema_type(item["schema"]), item["schema"].get("description") or "")
        for item in operation.get("parameters", [])
        if item["in"] == "query"
    ]
    return [*said, "", *([*_table(("parameter", "type", "meaning"), rows), ""] if rows else [])]


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = [
        (f"`{field}`", _schema_type(kind), _json_default(kind, field in required), kind.get("description") or "")
        for field, kind in schema.get("properties", {}).items()
    ]
    said = [f"### {name}", "", _paragraphs(schema.get("description", "")), ""]
    return [*said, *([*_table(("field", "type", "default", "meaning"), rows), ""] if rows else [])]


def _json_default(kind: dict[str, Any], required: bool) -> str:
    if required:
        return "must be given"
    return "" if kind.get("default") in (None, "") else f"`{kind['default']}`"


def _schema_type(kind: dict[str, Any]) -> str:
    """The type of a JSON value, for people."""
    if "$ref" in kind:
        name = kind["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(_schema_type(part) for part in kind["anyOf"])
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']}`"
    if kind.get("type") == "array":
        return f"list of {_schema_type(kind.get('items', {}))}"
    words = {
        "integer": "whole number",
        "string": "text",
        "boolean": "true or false",
        "object": "object",
        "null": "null",
    }
    said = words.get(kind.get("type", ""), kind.get("type", "anything"))
    limits = [
        f"{text} {kind[key]:,}".removesuffix(".0")
        for key, text in (("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most"))
        if key in kind
    ]
    return ", ".join([said, *limits])


# All pages


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table of Markdown."""
    names = list(headings)
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |", *(f"| {line} |" for line in lines)]


def _paragraphs(text: str) -> str:
    """A docstring without the line breaks of the source."""
    return "\n\n".join(" ".join(part.split()) for part in cleandoc(text).split("\n\n"))


def main() -> int:
    """Write the pages, or with `--check` compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail for a page that is stale")
    check = parser.parse_args().check
    made = pages()
    stale = [name for name, text in made.items() if not (path := FOLDER / name).exists() or path.read_text() != text]
    if check:
        print(f"stale: {', '.join(stale)}; run `make docs`" if stale else "docs/reference is as the code is")
        return int(bool(stale))
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(made[name])
    print(f"written: {', '.join(stale) or 'nothing, all was as the code is'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
