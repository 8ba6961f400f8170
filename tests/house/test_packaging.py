"""What gets installed elsewhere: the image copies what there is, packages are pinned, the wheel says what it needs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from proxy import __version__
from tests.house.tree import ROOT, text, tracked

LOCKS = ("service", "development", "build", "bench", "demo", "sqlalchemy20", "django-suite", "django-types", "django6")
PROJECT = tomllib.loads(text("pyproject.toml"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Package and version of every pin in a lock file."""
    found = PIN.findall(text(f"requirements/{lock}.txt"))
    return {canonicalize_name(name): version for name, version in found}


def assert_met(requirements: list[str], locked: dict[str, str]) -> None:
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not locked: make lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} but {locked[name]} is locked: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    blocks = re.split(r"\n(?=\S)", text(f"requirements/{lock}.txt").strip())
    assert blocks
    for block in blocks:
        assert PIN.match(block), block.splitlines()[0]
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_locks_meet_what_the_project_asks_for() -> None:
    assert_met(PROJECT["project"]["dependencies"], pins("service"))
    of_the_project = ("service", "development")
    groups = {"dev": "development"} | {name: name for name in LOCKS if name not in of_the_project}
    for group, lock in groups.items():
        asked = [entry for entry in PROJECT["dependency-groups"][group] if isinstance(entry, str)]
        assert_met(asked, pins(lock))
    client = tomllib.loads(text("clients/python/pyproject.toml"))
    assert_met(client["project"]["dependencies"], pins("service"))


def test_the_service_says_the_version_of_its_distribution() -> None:
    assert PROJECT["project"]["version"] == __version__


def test_the_image_runs_the_versions_that_are_tested() -> None:
    extras = distribution("keyside-proxy").metadata.get_all("Provides-Extra") or []
    assert extras
    for name in ("service", *extras):
        assert pins(name).items() <= pins("development").items(), name
    assert f'ARG BACKENDS="{" ".join(extras)}"' in text("Dockerfile"), "the image carries every back end unless told"
    assert pins("build").items() <= pins("development").items()


def test_what_the_image_copies_is_there_and_reaches_the_build() -> None:
    copied = [line.split()[1:-1] for line in text("Dockerfile").splitlines() if line.startswith("COPY ")]
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    sources = [source for words in copied for source in words if not source.startswith(("--from", "/opt/"))]
    assert sources
    for source in sources:
        assert any(path == source or path.startswith(f"{source}/") for path in tracked()), source
        assert source.split("/")[0] in allowed, f".dockerignore hides {source}"


def test_the_image_runs_as_nobody_special_and_checks_itself() -> None:
    final = text("Dockerfile").rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert not re.search(r"apt-get|gcc|libssl-dev", final), "the image that runs has no compiler"


def test_the_client_needs_msgpack_and_nothing_else() -> None:
    required = [Requirement(line) for line in distribution("keyside").requires or []]
    assert [line.name for line in required if line.marker is None] == ["msgpack"]


def test_the_licence_travels_with_the_service() -> None:
    assert "Apache License" in text("LICENSE")
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    assert (ROOT / PROJECT["project"]["readme"]).exists()
