"""The reference pages are as the code is, and leave nothing out."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from a2lc_backend.app import create_app
from a2lc_backend.label_configs import KINDS, PRESETS
from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, Settings
from scripts import reference

NAMES = ("settings.md", "cli.md", "api.md", "label-config.md")


def page(name: str) -> str:
    return (reference.FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_as_the_code_is(made: dict[str, str], name: str) -> None:
    assert page(name) == made[name], f"docs/reference/{name} is stale; run `make docs`"
    assert sorted(made) == sorted(NAMES) == sorted(path.name for path in reference.FOLDER.iterdir())


def test_every_setting_is_there_under_its_true_variable() -> None:
    text = page("settings.md")
    for name in Settings.model_fields:
        assert f"`{reference.variable(name)}`" in text, name
    for name in ProjectSettings.model_fields:
        assert f"| `{name}` | `{reference.variable(name)}` |" in text, name
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert {len(row) for row in rows} == {4, 5}
    for row in rows:
        assert len(row[-1]) > 5, f"{row[0]} has no meaning in the docstring"


@pytest.mark.parametrize("name", ["label_studio_url", "budget", "tile_pixels", "log_level"])
def test_the_variable_of_a_setting_is_the_one_that_sets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    values = {"label_studio_url": "http://x:1", "budget": "7", "tile_pixels": "70000", "log_level": "debug"}
    monkeypatch.chdir(tmp_path)
    for variable in reference.variables(name):
        with monkeypatch.context() as environment:
            environment.setenv(variable, values[name])
            assert str(getattr(Settings(), name)) == values[name], variable


def test_every_call_is_there(tmp_path: Path) -> None:
    text = page("api.md")
    with closing(Service(Settings(data_dir=tmp_path))) as service:
        app = create_app(service)
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    assert len(routes) > 30
    for route in routes:
        for method in route.methods:
            assert f"\n### {method} {route.path}\n" in text
    calls = re.split(r"\n### ", text.partition("## Bodies")[0])
    who = {call.split("\n")[0]: re.search(r"^For: (\w+)\.", call, re.M) for call in calls[1:]}
    said = {name: found[1] for name, found in who.items() if found}
    assert set(said) == set(who)
    assert said["GET /health"] == said["POST /webhook"] == "anybody"
    assert said["POST /api/projects/{project_id}/review/answers"] == "annotator"
    assert said["POST /api/projects/{project_id}/rounds"] == said["GET /api/workers"] == "admin"


def test_every_command_and_option_is_there() -> None:
    parts = dict(re.findall(r"^## (a2lc .+)\n((?:(?!^## ).*\n?)*)", page("cli.md"), re.M))
    found = dict(reference.commands())
    assert {"a2lc serve", "a2lc rounds next", "a2lc weights fetch"} <= set(found) == set(parts)
    for words, command in found.items():
        for item in command.params:
            for option in (item.name.upper(),) if item.param_type_name == "argument" else item.opts:
                assert option == "--help" or f"`{option}`" in parts[words], f"{words} {option}"


def test_labeling_interfaces_are_all_there() -> None:
    text = page("label-config.md")
    for path in (reference.ROOT / "label_studio_config").glob("*.xml"):
        assert f"[`{path.name}`]" in text
    assert all(name in text for name in (*PRESETS, *KINDS))


def test_a_stale_page_is_told_and_mended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: dict[str, str]
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    monkeypatch.setattr(reference, "pages", lambda: made)
    monkeypatch.setattr("sys.argv", ["reference", "--check"])
    assert reference.main() == 1
    assert "stale: settings.md, cli.md, api.md, label-config.md; run `make docs`" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["reference"])
    assert reference.main() == 0
    monkeypatch.setattr("sys.argv", ["reference", "--check"])
    assert reference.main() == 0
    (tmp_path / "api.md").write_text("old")
    assert reference.main() == 1
