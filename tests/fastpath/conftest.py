"""One arena for the whole test process, and a window into the native modules' C functions built for the tests alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastpath import memory

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
source, checkout = sys.argv[-2:]
del sys.argv[-2:]
probe = Extension("probe", [source], extra_compile_args=["-O1"])
setup(name="probe", ext_modules=cythonize([probe], include_path=[checkout], build_dir="."))
"""


@pytest.fixture(scope="session")
def arena() -> memory.MemoryReport:
    """The secret arena, open for 8 workers and 65,536 keys; a process can open it once."""
    return memory.report() or memory.open(65536, 8)


@pytest.fixture(scope="session")
def probe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled `probe` module, for subprocesses to put on their path."""
    folder = tmp_path_factory.mktemp("probe")
    source = folder / "probe.pyx"
    source.write_bytes((Path(__file__).parent / "probe.pyx").read_bytes())
    # the compiler is not for the sanitizer's eyes
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    built = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, "-q", "build_ext", "--inplace", source, CHECKOUT],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="session")
def probe(arena: memory.MemoryReport, probe_folder: Path) -> ModuleType:
    """The `probe` module in this process, the arena open."""
    spec = importlib.util.spec_from_file_location("probe", next(probe_folder.glob("probe.*.so")))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
