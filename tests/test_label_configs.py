"""Labeling interfaces that the program makes are ones that it reads, and the files beside it are made by it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from a2lc_backend.bench import cityscapes, voc
from a2lc_backend.cli import app
from a2lc_backend.label_configs import KINDS, PRESETS, label_config, own_colours
from a2lc_backend.regions import LabelConfigError, parse_label_config
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRESETS)
def test_the_files_are_what_the_command_prints(name: str, kind: str) -> None:
    result = CliRunner().invoke(app, ["label-config", "--preset", name, "--kind", kind])
    assert result.exit_code == 0, result.output
    file = REPOSITORY / f"label_studio_config/{name}{'' if kind == 'bitmask' else f'-{kind}'}.xml"
    assert file.read_text(encoding="utf-8") == result.output
    config = parse_label_config(result.output)
    assert config.kind == f"{kind}labels"
    assert [(label.name, label.background) for label in config.labels] == list(PRESETS[name])
    keys = [label.hotkey for label in config.labels]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set("behkmoprvwu"), "those are Label Studio's tools"


def test_presets_have_the_classes_of_their_data_sets() -> None:
    assert tuple(name for name, _ in PRESETS["cityscapes"]) == cityscapes.CLASSES
    assert tuple(name for name, _ in PRESETS["voc"]) == voc.CLASSES


def test_own_classes_may_have_any_names_and_smart_tools() -> None:
    names = ['a "quoted" one', "R&D <b>", "Straße"]
    result = CliRunner().invoke(app, ["label-config", "--classes", ",".join(names), "--kind", "brush", "--smart"])
    assert parse_label_config(result.output).classes == tuple(names)
    assert result.output.count('smart="true"') == 2
    assert '<KeyPointLabels name="point"' in result.output
    keys = re.findall(r'hotkey="(.)"', result.output)
    assert len(set(keys)) == len(keys) == 9
    many = parse_label_config(label_config(own_colours([f"c{index}" for index in range(200)])))
    assert len({label.background for label in many.labels}) > 150
    assert many.labels[-1].hotkey is None


def test_what_is_no_config_is_said() -> None:
    with pytest.raises(LabelConfigError, match="a name of its own; car is none"):
        label_config([("car", "#000000"), ("car", "#111111")])
    with pytest.raises(LabelConfigError, match="an empty one"):
        label_config([("  ", "#000000")])
    with pytest.raises(LabelConfigError):
        label_config(own_colours([str(index) for index in range(300)]))
    for arguments in (["--classes", "a", "--preset", "voc"], []):
        result = CliRunner().invoke(app, ["label-config", *arguments])
        assert result.exit_code == 1
        assert "either --classes or --preset" in result.output
