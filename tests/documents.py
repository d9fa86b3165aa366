"""The documents as tests read them: blocks of commands, links, headings, and names of variables and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import REPOSITORY

SHELL = {"sh", "bash", "shell", "console"}
_MARK = re.compile(r"<!--\s*not run: (?P<why>.+?)\s*-->", re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        document: path from the root of the repository.
        line: where it begins, from 1.
        language: the word after the fence, "" if there is none.
        text: what it holds.
        not_run: why nobody runs it, by the mark right before it; "" without one.
    """

    document: str
    line: int
    language: str
    text: str
    not_run: str

    @property
    def is_shell(self) -> bool:
        """Whether it holds commands of a shell."""
        return self.language in SHELL

    @property
    def first(self) -> str:
        """Its first line, by which tests name it."""
        return self.text.split("\n", 1)[0]

    def meaning(self, meanings: Mapping[str, str]) -> str:
        """The text with what the reader's own values stand for; each of them must be there."""
        text = self.text
        for said, meant in meanings.items():
            assert said in text, f"{self.document}:{self.line} does not say {said!r}"
            text = text.replace(said, meant)
        return text

    def __str__(self) -> str:
        return f"{self.document}:{self.line} ({self.first})"


def documents() -> list[str]:
    """README.md and every page of docs/, from the root of the repository."""
    found = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [path.relative_to(REPOSITORY).as_posix() for path in found]


@lru_cache
def _tokens(document: str) -> tuple[Token, ...]:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return tuple(MarkdownIt("commonmark").enable("table").parse(text))


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document."""
    found, before = [], ""
    for token in _tokens(document):
        if token.type == "fence":
            mark = _MARK.fullmatch(before.strip())
            line = (token.map or [0])[0] + 1
            found.append(Block(document, line, token.info.strip(), token.content, mark["why"] if mark else ""))
        before = token.content if token.type == "html_block" else ""
    return found


def block(document: str, first: str) -> Block:
    """The block of commands whose first line is this, or begins so."""
    found = [item for item in blocks(document) if item.is_shell and item.first.startswith(first)]
    exact = [item for item in found if item.first == first]
    (only,) = exact or found
    return only


def _inline(document: str) -> Iterator[Token]:
    for token in _tokens(document):
        yield from token.children or ()


def code_spans(document: str) -> list[str]:
    """What stands between single backticks."""
    return [token.content for token in _inline(document) if token.type == "code_inline"]


def links(document: str) -> list[str]:
    """Where links and pictures lead to."""
    found = [token.attrGet("href" if token.type == "link_open" else "src") for token in _inline(document)
             if token.type in {"link_open", "image"}]  # fmt: skip
    return [str(address) for address in found]


@lru_cache
def anchors(document: str) -> frozenset[str]:
    """Names of the headings as GitHub makes them, and of `<a name=…>`."""
    names: dict[str, int] = {}
    tokens = _tokens(document)
    for opened, inside in pairwise(tokens):
        if opened.type == "heading_open":
            plain = "".join(child.content for child in inside.children or ())
            name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            names[name] = names.get(name, -1) + 1
            if names[name]:
                names[f"{name}-{names[name]}"] = 0
    return frozenset(names)


def calls(text: str, program: str = "a2lc") -> list[list[str]]:
    """The arguments of every call of a program in some lines of shell.

    Continued lines are joined and comments dropped; what is not this program is left out, also where it stands behind
    a pipe, `&&`, or variables that are set for the one call.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for index, word in enumerate(words):
            starts = index == 0 or words[index - 1] in {"|", "&&", "||", ";", "exec", "then"} or "=" in words[index - 1]
            if starts and Path(word).name == program:
                rest = words[index + 1 :]
                end = next((place for place, end in enumerate(rest) if end in {"|", "&&", "||", ";", "&", ">", ">>"}),
                           len(rest))  # fmt: skip
                found.append(rest[:end])
    return found


def path_of(document: str, address: str) -> Path:
    """The file that a relative link leads to."""
    return (REPOSITORY / document).parent / address.partition("#")[0]
