from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from a2lc_backend.cli import app
from a2lc_backend.settings import ProjectSettings, Settings, SettingsError, load_settings
from a2lc_backend.store import Ledger, Phase, Problem, Project

RUN = CliRunner()


@pytest.fixture(autouse=True)
def empty_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("A2LC_", "LABEL_STUDIO_")) and name != "A2LC_TEST_LABEL_STUDIO":
            monkeypatch.delenv(name)
    monkeypatch.setenv("A2LC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")


def test_help_is_quick_and_imports_no_torch() -> None:
    heavy = ("torch", "numba", "sklearn", "sqlalchemy", "label_studio_sdk")
    code = f"import sys; from a2lc_backend import cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    fastest = 9.0
    for _ in range(3):
        begun = os.times()
        subprocess.run([sys.executable, "-m", "a2lc_backend", "--help"], capture_output=True, check=True)
        ended = os.times()  # of the processor: others may be busy
        fastest = min(
            fastest, ended.children_user - begun.children_user + ended.children_system - begun.children_system
        )
    assert fastest < 1.0


def test_the_web_process_imports_no_torch() -> None:
    heavy = ("torch", "numba", "transformers", "sklearn")
    code = f"import sys, a2lc_backend.app; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rounds_are_listed_and_shown(tmp_path: Path) -> None:
    ledger = Ledger(load_settings().ledger_url)
    ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    ledger.begin_round(3, 10)
    ledger.save_phase(3, 0, Phase("collect", "done", 4, 4, 1.0, 2.5))
    ledger.add_problems(3, [Problem(0, "propose", 8, "task 8: image is truncated; upload it again")])
    ledger.change_status(3, 0, ["running"], "failed", "propose: no image could be used")
    listed = RUN.invoke(app, ["rounds", "list", "--project", "3"])
    assert listed.exit_code == 0
    assert "failed" in listed.output
    shown = RUN.invoke(app, ["rounds", "show", "--project", "3"])
    assert shown.exit_code == 0
    for text in ("no image could be used", "collect", "1.5", "task 8: image is truncated"):
        assert text in shown.output


def test_a_project_without_rounds_says_how_to_begin() -> None:
    for command in (["list"], ["show"]):
        result = RUN.invoke(app, ["rounds", *command, "--project", "3"])
        assert result.exit_code == 1
        assert "a2lc rounds next --project 3" in result.output


def test_next_without_a_backend_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A2LC_URL", "http://127.0.0.1:9")
    result = RUN.invoke(app, ["rounds", "next", "--project", "3"])
    assert result.exit_code == 1
    assert "a2lc serve" in result.output


def test_doctor_names_each_mend() -> None:
    result = RUN.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ok   ledger" in result.output
    assert "ok   artifacts" in result.output
    assert "FAIL Label Studio" in result.output
    assert "LABEL_STUDIO_URL" in result.output
    assert "FAIL token" in result.output
    assert "set LABEL_STUDIO_API_KEY" in result.output


def test_doctor_says_nothing_of_a_token_it_could_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    result = RUN.invoke(app, ["doctor"])
    assert "FAIL Label Studio" in result.output
    assert "token" not in result.output


@pytest.mark.parametrize("by_option", [True, False])
def test_serve_names_a_port_in_use(by_option: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("A2LC_PORT", "1" if by_option else port)
        result = RUN.invoke(app, ["serve", *(["--port", port] if by_option else [])])
    assert result.exit_code == 1
    assert result.output == f"port {port} is in use; choose another with --port or A2LC_PORT\n"


@pytest.mark.parametrize("command", ["list", "show", "watch"])
def test_help_says_where_rounds_are_read(command: str) -> None:
    result = RUN.invoke(app, ["rounds", command, "--help"])
    for name in ("A2LC_URL", "A2LC_DATABASE_URL", "A2LC_DATA_DIR"):
        assert name in result.output


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A2LC_PORT", "ninety")
    result = RUN.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.output.startswith("settings: A2LC_PORT: ")


def test_extra_params_override_the_installation_and_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A2LC_BUDGET", "77")
    settings = load_settings()
    assert settings.project() == ProjectSettings(budget=77)
    assert settings.project({"corrector": "paper"}).corrector == "paper"
    for wrong in ({"budget": 0}, {"butget": 5}, {"proposals": "magic"}, {"world": "/etc"}):
        with pytest.raises(SettingsError, match=f"project settings: {next(iter(wrong))}(: | is no setting)"):
            settings.project(wrong)
    with pytest.raises(SettingsError, match="project settings: Value error, the policy manual needs"):
        settings.project({"corrector": "paper", "policy": "manual"})
    monkeypatch.setenv("A2LC_BUDGET", "0")
    with pytest.raises(SettingsError, match="project settings: A2LC_BUDGET: "):
        load_settings().project({"seed": 1})


def test_the_token_is_never_printed() -> None:
    assert "abc" not in repr(Settings(label_studio_api_key="abc"))  # type: ignore[arg-type]


def test_a_slip_of_the_pen_is_no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A2LC_BUGDET", "5")
    result = RUN.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.output == "settings: A2LC_BUGDET is no setting; did you mean A2LC_BUDGET?\n"
    monkeypatch.delenv("A2LC_BUGDET")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("A2LC_TOTALLY_ELSE=1\n")
    assert (
        "A2LC_TOTALLY_ELSE is no setting; docs/reference/settings.md lists them" in RUN.invoke(app, ["doctor"]).output
    )
    with pytest.raises(
        SettingsError, match=r"butget is no setting of a project; did you mean budget\?.*Settings > Model"
    ):
        Settings().project({"butget": 5})
    with pytest.raises(SettingsError, match=r"budget: .* not 'many'"):
        Settings().project({"budget": "many"})


@pytest.mark.parametrize("command", [["serve"], ["worker"], ["doctor"], ["rounds", "list", "--project", "3"]])
def test_a_wrong_default_of_all_projects_stops_every_command(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A2LC_POLICY", "gian")
    result = RUN.invoke(app, command)
    assert result.exit_code == 1
    assert "A2LC_POLICY: Input should be 'gain', 'precision' or 'manual', not 'gian'" in result.output


def test_doctor_looks_at_redis_and_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A2LC_REDIS_URL", "redis://127.0.0.1:9/0")
    output = RUN.invoke(app, ["doctor"]).output
    assert "FAIL Redis: " in output
    assert "start Redis, or set A2LC_REDIS_URL" in output
    assert "FAIL workers: no worker listens on a2lc-gpu and a2lc-cpu; start one with: a2lc worker" in output


def test_doctor_says_what_a_database_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A2LC_DATABASE_URL", "postgresql://x:y@127.0.0.1:9/z")
    output = RUN.invoke(app, ["doctor"]).output
    assert "see that the database runs, and that A2LC_DATABASE_URL has its host, name, user and password" in output
    assert "sqlalche.me" not in output
