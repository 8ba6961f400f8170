"""Native extensions and their build flags; everything else about the build is in pyproject.toml.

Environment: KEYSIDE_SANITIZE=address,undefined or thread builds with sanitizers; KEYSIDE_COVERAGE=1 with gcov.
"""

import os
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
COMPILER = os.environ.get("CC", "cc")

COMPILE = [
    "-O3",
    "-g1",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-fstack-protector-strong",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]
LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]

if sanitizers := os.environ.get("KEYSIDE_SANITIZE"):
    COMPILE += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-O1"]
    LINK += [f"-fsanitize={sanitizers}"]
else:
    COMPILE += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
if os.environ.get("KEYSIDE_COVERAGE"):
    COMPILE += ["--coverage", "-O0"]
    LINK += ["--coverage"]


def static_libcrypto() -> list[str]:
    """Linker words for a private libcrypto.

    Static and hidden, because the shared one belongs to Python's own ssl module: its allocations cannot be sent into
    the secret arena. There is no fallback to the shared library: it would leave key schedules in ordinary memory.
    """
    found = subprocess.run([COMPILER, "-print-file-name=libcrypto.a"], capture_output=True, text=True, check=True)
    archive = Path(found.stdout.strip())
    if not archive.is_absolute():
        sys.exit(
            "keyside: no static libcrypto (libcrypto.a) found. Install OpenSSL's development files: "
            "on Debian and Ubuntu 'apt-get install libssl-dev', on Fedora 'dnf install openssl-devel openssl-static', "
            "on Alpine 'apk add openssl-dev openssl-libs-static'."
        )
    words = [str(archive), "-Wl,--exclude-libs,ALL"]
    config = subprocess.run(["pkg-config", "--static", "--libs-only-l", "libcrypto"], capture_output=True, text=True)
    words += [word for word in config.stdout.split() if word != "-lcrypto"] or ["-ldl", "-pthread"]
    return words


def extension(module: str, *link: str) -> Extension:
    return Extension(
        module,
        [module.replace(".", "/") + ".pyx"],
        extra_compile_args=COMPILE,
        extra_link_args=[*LINK, *link],
    )


def extensions() -> list[Extension]:
    # a wheel holds the product alone; the load generator is built where it lies, by `setup.py build_ext`
    folders = ("fastpath", "benchmarks") if "build_ext" in sys.argv else ("fastpath",)
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in folders
        for path in (ROOT / folder).glob("*.pyx")
    )
    # only the module that calls OpenSSL links it: one private copy in the process
    return [extension(name, *(static_libcrypto() if name == "fastpath.aead" else [])) for name in modules]


setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    ),
)
