"""Who may import whom: what import-linter cannot see, because it reads no Cython and starts no process."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.house.tree import sources, text

NATIVE = [path for path in sources(".pyx", ".pxd") if path.startswith("fastpath/")]
MAY_CIMPORT = {"fastpath", "libc", "cpython", "posix", "cython"}
OURS = {"fastpath", "providers", "proxy", "keyside", "benchmarks", "tests"}

CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+cimport|cimport\s+([\w., ]+))", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import|import\s+([\w., ]+))", re.MULTILINE)
INCLUDE = re.compile(r"^\s*include\s+[\"']", re.MULTILINE)
# a back end's SDK costs tens of megabytes and seconds: it is imported by the provider that is configured, when it opens
SDKS = ("boto3", "botocore", "azure", "google.cloud", "pkcs11", "hvac")


def packages(pattern: re.Pattern[str], source: str) -> set[str]:
    """The top-level packages that the import statements which `pattern` finds name."""
    found = set()
    for single, several in pattern.findall(source):
        names = [single] if single else several.split(",")
        found |= {name.split(" as ")[0].strip().split(".")[0] for name in names}
    return found - {""}


def test_the_pattern_reads_every_form_of_cimport() -> None:
    source = "cimport cython\nfrom fastpath.arena cimport x\n    from libc.stdint cimport y\ncimport a.b as c, d\n"
    assert packages(CIMPORT, source) == {"cython", "fastpath", "libc", "a", "d"}


@pytest.mark.parametrize("path", NATIVE)
def test_native_modules_cimport_only_each_other_and_the_platform(path: str) -> None:
    assert packages(CIMPORT, text(path)) <= MAY_CIMPORT


@pytest.mark.parametrize("path", NATIVE)
def test_native_modules_import_nothing_of_ours_no_event_loop_and_no_package(path: str) -> None:
    imported = packages(IMPORT, text(path)) - {"fastpath"}
    assert imported <= sys.stdlib_module_names - {"asyncio"}
    assert not imported & OURS


@pytest.mark.parametrize("path", sources(".pyx", ".pxd"))
def test_names_arrive_by_cimport_and_never_by_include(path: str) -> None:
    assert not INCLUDE.search(text(path)), "an include hides where a name comes from"


@pytest.mark.parametrize("path", [path for path in sources(".py") if path.startswith("fastpath/")])
def test_python_in_the_data_plane_imports_no_event_loop_and_no_package(path: str) -> None:
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "fastpath").split(".")[0]}
        else:
            continue
        assert names <= (sys.stdlib_module_names | {"fastpath"}) - {"asyncio"}


@pytest.mark.parametrize("module", ["providers", "proxy", "proxy.cli", "keyside"])
def test_importing_loads_no_back_end_sdk(module: str) -> None:
    program = f"import sys, {module}\nprint([name for name in {SDKS!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_every_native_module_has_its_map_and_its_types() -> None:
    tracked = set(sources(".pyx", ".pxd", ".pyi"))
    for path in (path for path in NATIVE if path.endswith(".pyx")):
        bare = path.removesuffix(".pyx")
        assert f"{bare}.pxd" in tracked or f"{bare}.pyi" in tracked, f"{path} has neither a .pxd nor a .pyi"
