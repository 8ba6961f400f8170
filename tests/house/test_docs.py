"""Documents keep their promises: links lead somewhere, snippets compile, commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

import click
import pytest

from proxy.cli import cli
from proxy.config import load
from tests.house.tree import ROOT, sources, text, tracked

DOCUMENTS = sources(".md")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"`make ([a-z]+)|^ {4}make ([a-z]+)", re.MULTILINE)


def prose(path: str) -> str:
    """The document without its fenced blocks, where brackets are code."""
    return FENCE.sub("", text(path))


def anchor(heading: str) -> str:
    """The fragment that a heading gets: lower case, no punctuation, a hyphen for a space."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def links() -> list[tuple[str, str]]:
    return [(path, link) for path in DOCUMENTS for link in LINK.findall(prose(path)) if "://" not in link]


@pytest.mark.parametrize(("path", "link"), links())
def test_relative_links_lead_somewhere(path: str, link: str) -> None:
    target, _, fragment = link.partition("#")
    there = (ROOT / path).parent / target if target else ROOT / path
    assert there.exists(), f"{path} links to {link}"
    if fragment:
        assert fragment in {anchor(heading) for heading in HEADING.findall(there.read_text())}, f"{path}: {link}"


def test_the_repository_is_named_by_what_is_tracked() -> None:
    """A link to a file that only a build makes would be dead in a fresh clone."""
    folders = {str(parent) for path in tracked() for parent in PurePosixPath(path).parents}
    for path, link in links():
        target = link.partition("#")[0]
        if target:
            relative = ((ROOT / path).parent / target).resolve().relative_to(ROOT)
            assert str(relative) in {*tracked(), *folders}, f"{path} links to {link}"


def snippets() -> list[tuple[str, str]]:
    return [(path, code) for path in DOCUMENTS for language, code in FENCE.findall(text(path)) if language == "python"]


@pytest.mark.parametrize(("path", "code"), snippets())
def test_python_snippets_compile(path: str, code: str) -> None:
    compile(code, path, "exec", dont_inherit=True)


def test_the_readme_has_a_snippet() -> None:
    assert "README.md" in {path for path, _ in snippets()}


def command_lines() -> list[tuple[str, tuple[str, ...]]]:
    """Every `keyside ...` in an indented or fenced block, pipelines and lists taken apart."""
    found = []
    for path in DOCUMENTS:
        lines = [line for line in text(path).splitlines() if line.startswith("    ")]
        for language, code in FENCE.findall(text(path)):
            lines += code.splitlines() if language == "sh" else []
        for line in lines:
            words = shlex.shlex(line, posix=True, punctuation_chars="|;&()<>")
            words.whitespace_split = True
            try:
                parts = split(list(words))
            except ValueError:  # an apostrophe in a drawing: no command
                continue
            found += [(path, tuple(part[1:])) for part in parts if part and part[0] == "keyside" and part[1:]]
    return found


def split(words: list[str]) -> list[list[str]]:
    """Words cut at the shell's operators."""
    parts: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("|;&()<>"):
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def resolve(words: tuple[str, ...]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after its name."""
    command: click.Command = cli
    rest = list(words)
    context = click.Context(command, info_name="keyside")
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"keyside {' '.join(words)}: there is no {name}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    return command, rest


@pytest.mark.parametrize(("path", "words"), sorted(set(command_lines())))
def test_documented_commands_exist(path: str, words: tuple[str, ...]) -> None:
    command, rest = resolve(words)
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{path}: keyside {' '.join(words)}: there is no {word}"


def test_the_readme_shows_the_main_commands() -> None:
    shown = {words[0] for path, words in command_lines() if path == "README.md"}
    assert shown >= {"init", "serve", "keyring", "status", "encrypt", "decrypt", "config"}


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    for path in DOCUMENTS:
        for quoted, indented in TARGET.findall(text(path)):
            assert (quoted or indented) in targets, f"{path}: make {quoted or indented}"


def test_the_example_configuration_loads() -> None:
    config = load(ROOT / "config.example.yaml")
    assert config.policy.peers
    assert config.unbuilt() == []
