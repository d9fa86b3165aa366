"""What can be said of the documents without running them: links, commands, variables, and that every block is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

from a2lc_backend.cli import app
from a2lc_backend.settings import Settings
from a2lc_backend.store import tables
from scripts.reference import variables
from tests.conftest import REPOSITORY
from tests.documents import anchors, blocks, calls, code_spans, documents, links, path_of
from tests.test_docs_run import RUN_BY

DOCUMENTS = documents()
WRITTEN = [name for name in DOCUMENTS if not name.startswith("docs/reference/")]
LANGUAGES = {"sh", "bash", "python", "xml", "json", "text", "yaml", "dockerfile", "ini", "nginx", "toml", "sql"}

OF_LABEL_STUDIO = {"LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK",
    "LABEL_STUDIO_BASE_DATA_DIR", "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN", "LABEL_STUDIO_HOST", "LABEL_STUDIO_PASSWORD",
    "LABEL_STUDIO_USERNAME", "LABEL_STUDIO_USER_TOKEN", "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED",
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
}  # fmt: skip
"""Variables that Label Studio itself reads, as LABEL_STUDIO_… is not ours alone."""

_VARIABLE = re.compile(r"\b(?:A2LC|LABEL_STUDIO)_[A-Z0-9_]*[A-Z0-9]\b")


def known_variables() -> set[str]:
    return {name for field in Settings.model_fields for name in variables(field)} | OF_LABEL_STUDIO


@pytest.mark.parametrize("document", WRITTEN)
def test_every_block_of_commands_is_run_or_says_why_not(document: str) -> None:
    for item in blocks(document):
        assert item.language in LANGUAGES, f"{item}: say what language it is in, `text` for none"
        if not item.is_shell:
            continue
        by = RUN_BY.get((item.document, item.first))
        assert not (by and item.not_run), f"{item} is run by {by}, and marked as not run"
        by = by or RUN_BY.get((item.document, "*"))
        assert by or item.not_run, f"{item} is run by no test: name one in tests/test_docs_run.py, or mark it"


def test_the_table_of_runs_names_blocks_and_tests_that_are_there() -> None:
    there = {(item.document, item.first): item for name in WRITTEN for item in blocks(name) if item.is_shell}
    for key, test in RUN_BY.items():
        assert key in there or key[1] == "*", f"{key} is no block"
        file, _, name = test.partition("::")
        tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
        found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
        assert found, f"{test} is no test"
        assert found.name.startswith("test_")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_and_anchors_lead_somewhere(document: str) -> None:
    for address in links(document):
        if re.match(r"[a-z]+:", address):
            continue
        target = path_of(document, address)
        if address.startswith("#"):
            target = REPOSITORY / document
        assert target.exists(), f"{document}: {address}"
        anchor = address.partition("#")[2]
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.resolve().relative_to(REPOSITORY).as_posix()), f"{document}: {address}"


def parse(words: list[str]) -> None:
    """Let the real command line read a call; nothing is run. Raises what it would tell."""
    command = typer.main.get_command(app)
    words = ["7" if re.fullmatch(r"N|NUMBER|PROJECT|\$\w+", word) else word for word in words]
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    if "--help" not in words:
        command.make_context(command.name, list(words))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_call_of_a2lc_is_one_that_the_program_takes(document: str) -> None:
    for item in blocks(document):
        if item.is_shell:
            for words in calls(item.text):
                try:
                    parse(words)
                except Exception as error:
                    pytest.fail(f"{item}: a2lc {' '.join(words)}: {error}")


def test_a_call_that_the_program_does_not_take_is_seen() -> None:
    for text in ("a2lc rounds nxt", "x=1 a2lc serve --prot 9", "cd a && .venv/bin/a2lc rounds next", "a2lc worker x"):
        (words,) = calls(text)
        with pytest.raises(Exception, match=r"no command|No such option|Missing|unexpected extra"):
            parse(words)
    assert calls("make test # a2lc serve\nls a2lc\na2lc export -p 7 \\\n  --out x | tail") == [
        ["export", "-p", "7", "--out", "x"]
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_named_in_the_text_are_there(document: str) -> None:
    for span in code_spans(document):
        if not span.startswith("a2lc "):
            continue
        command = typer.main.get_command(app)
        for word in span.split()[1:]:
            if not hasattr(command, "commands"):
                break
            for name in word.strip(",").split("|"):
                assert name in command.commands or name == "…", f"{document}: `{span}`"
            command = command.commands.get(word.split("|")[0], None)
        for option in re.findall(r"(?<= )--[a-z-]+", span):
            known = [name for item in command.params for name in (*item.opts, *item.secondary_opts)]
            assert option in known, f"{document}: `{span}`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_variable_is_one_that_is_read(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    unknown = set(_VARIABLE.findall(text)) - known_variables()
    assert not unknown, f"{document} names {', '.join(sorted(unknown))}, which nothing reads"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = {path_of("docs/README.md", address).resolve() for address in links("docs/README.md")}
    for name in DOCUMENTS:
        if name not in {"README.md", "docs/README.md"}:
            assert (REPOSITORY / name).resolve() in index, f"docs/README.md does not lead to {name}"
    assert "docs/README.md" in {Path(address.partition("#")[0]).as_posix() for address in links("README.md")}


def test_every_table_of_the_ledger_is_explained() -> None:
    named = set(code_spans("docs/storage.md"))
    assert set(tables.metadata.tables) <= named
