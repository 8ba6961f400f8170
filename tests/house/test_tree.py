"""The tree as a newcomer meets it: no build products, small modules, names that say what is inside."""

from __future__ import annotations

import ast
import subprocess
from pathlib import PurePath

import pytest

from tests.house.tree import ROOT, sources, text, tracked

PRODUCTS = (".so", ".o", ".a", ".pyc", ".pyo", ".pyd", ".whl", ".egg", ".egg-info", ".sqlite")
MEASUREMENTS = (".gcda", ".gcno", ".coverage")
MODULE_LINES = 600
FUNCTION_LINES = 40
LONG_FUNCTIONS = 0.05  # the share that may be longer
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}


def test_no_build_product_is_tracked() -> None:
    generated = {path.removesuffix(".pyx") + end for path in sources(".pyx") for end in (".c", ".cpp", ".html")}
    products = [
        path
        for path in tracked()
        if path.endswith(PRODUCTS + MEASUREMENTS) or path in generated or "__pycache__" in path
    ]
    assert products == []


def test_the_ignore_file_covers_what_make_makes() -> None:
    made = [".venv/x", "build/x", "dist/x", "fastpath/aead.c", "fastpath/aead.so", "benchmarks/results/x.json", "run/x"]
    made += ["data/x", "keyside.yaml", ".pytest_cache/x", ".mypy_cache/x", ".ruff_cache/x", ".hypothesis/x"]
    answer = subprocess.run(["git", "check-ignore", *made], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.split() == made


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd", ".pyi"))
def test_modules_are_short(path: str) -> None:
    assert len(text(path).splitlines()) <= MODULE_LINES


def test_functions_are_seldom_long() -> None:
    lengths = {}
    for path in (path for path in sources(".py") if not path.startswith("tests/")):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{path}:{node.lineno} {node.name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}
    assert len(long) <= LONG_FUNCTIONS * len(lengths), long


@pytest.mark.parametrize("path", sources(".py", ".pyx"))
def test_names_say_what_is_inside(path: str) -> None:
    parts = {part.lower() for part in PurePath(path).with_suffix("").parts}
    assert not parts & VAGUE


@pytest.mark.parametrize("path", sources(".py"))
def test_nothing_is_left_for_later(path: str) -> None:
    if path == "tests/house/test_tree.py":
        return
    source = text(path)
    for mark in (
        "TODO",
        "FIXME",
        "XXX",
        "NotImplementedError",
        "pytest.mark.skip",
        "pytest.skip(",
        "pytest.mark.xfail",
    ):
        assert mark not in source, f"{path} holds {mark}"


def test_no_file_names_a_package_index() -> None:
    """Which index pip uses is the user's setting; an address in a file would override or leak it."""
    named = [path for path in tracked() if path.endswith((".txt", "Makefile", "Dockerfile", ".toml", ".cfg"))]
    named += [path for path in tracked() if path.startswith((".ci/", "scripts/"))]
    for path in named:
        for line in text(path).splitlines():
            assert not line.lstrip().startswith(("--index-url", "--extra-index-url", "--find-links", "-i ")), (
                path,
                line,
            )


def test_ci_runs_the_whole_of_make_test() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert "make test" in text(".ci/run")
