"""What keeps strangers out: secrets in files, who may call what, how much and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2lc_backend.settings import SettingsError, load_settings


@pytest.fixture
def secrets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of secrets, as Docker mounts one, which the environment names."""
    for name in ("LABEL_STUDIO_API_KEY", "A2LC_REDIS_URL", "A2LC_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("A2LC_SECRETS_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_secrets_come_from_files(secrets_folder: Path) -> None:
    (secrets_folder / "label_studio_api_key").write_text("f" * 40 + "\n")
    (secrets_folder / "a2lc_redis_url").write_text("redis://:sesame@redis/0")
    (secrets_folder / "a2lc_database_url").write_text("postgresql://a2lc:open@db/a2lc")
    (secrets_folder / "postgres_password").write_text("of another container")
    settings = load_settings()
    assert settings.label_studio_api_key.get_secret_value() == "f" * 40
    assert settings.redis_url.get_secret_value() == "redis://:sesame@redis/0"
    assert settings.ledger_url == "postgresql://a2lc:open@db/a2lc"
    assert {"f" * 40, "sesame", "open"} <= set(settings.secrets)


@pytest.mark.parametrize("variable", ["LABEL_STUDIO_API_KEY", "A2LC_LABEL_STUDIO_API_KEY"])
def test_the_environment_wins_over_a_file(secrets_folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    (secrets_folder / "label_studio_api_key").write_text("from the file")
    monkeypatch.setenv(variable, "from the environment")
    assert load_settings().label_studio_api_key.get_secret_value() == "from the environment"


def test_the_folder_of_secrets_may_stand_in_the_file_env(secrets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A2LC_SECRETS_DIR")
    (secrets_folder / "label_studio_api_key").write_text("from the file")
    Path(".env").write_text("A2LC_SECRETS_DIR=secrets\n")
    assert load_settings().label_studio_api_key.get_secret_value() == "from the file"


def test_a_folder_or_a_file_of_secrets_that_is_wrong_is_named(
    secrets_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets_folder / "a2lc_redis_ulr").write_text("redis://redis/0")
    with pytest.raises(SettingsError, match=r"a2lc_redis_ulr is no setting; did you mean A2LC_REDIS_URL\?"):
        load_settings()
    (secrets_folder / "a2lc_redis_ulr").unlink()
    (secrets_folder / "label_studio_api_key").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"label_studio_api_key.*A2LC_SECRETS_DIR.*decode"):
        load_settings()
    monkeypatch.setenv("A2LC_SECRETS_DIR", str(secrets_folder / "absent"))
    with pytest.raises(SettingsError, match=r"A2LC_SECRETS_DIR: .*there is no such folder"):
        load_settings()
