# `make demo` shows Rollway, `make test` proves it. From a fresh clone on Debian 12 (or any Linux with Python 3.11 or
# newer): whatever is missing is installed when you are root, else named. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check fmt bench setup wheels lock clean requires-demo requires-test

VENV := .venv
RUN := $(VENV)/bin
# Written when the venv holds what the lock says.
STAMP := $(VENV)/.rollway-setup
# Interpreters for the venv, the first that works: `make PYTHON=/usr/bin/python3.12 setup` names another.
PYTHON ?= python3.11 python3 python3.13 python3.12
# Where `make wheels` puts what hosts install, for Debian 12's Python on this machine's architecture.
WHEELS ?= dist/wheels
HOSTS := --implementation cp --python-version 3.11 --only-binary :all: --platform manylinux2014_$(shell uname -m) \
    $(foreach glibc,17 24 26 27 28 31 34 35 36,--platform manylinux_2_$(glibc)_$(shell uname -m))
# Extra words for pytest or a benchmark: `make test ARGS="-k swap"`.
ARGS ?=

# What is there of the Debian packages that may be missing, and how to see it without dpkg.
USABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
FIND_PYTHON = for p in $(PYTHON); do if "$$p" -c '$(USABLE)' 2>/dev/null; then echo "$$p"; break; fi; done
# Where somebody named an interpreter, Debian's is not what is missing.
have-python3-venv = $(if $(filter file,$(origin PYTHON)),test -n "$$($(FIND_PYTHON))",true)
have-git = command -v git
have-gcc = command -v gcc
have-libc6-dev = gcc -print-file-name=libc.a 2>/dev/null | grep /
have-nodejs = command -v node
have-iproute2 = command -v ip
have-curl = command -v curl
have-faketime = command -v faketime
have-systemd = command -v systemd-analyze
have-systemd-container = command -v systemd-nspawn
have-mmdebstrap = command -v mmdebstrap
have-e2fsprogs = command -v debugfs
have-haproxy = PATH="$$PATH:/usr/sbin" command -v haproxy
have-qemu-system-x86 = command -v qemu-system-x86_64

# $(call require,PACKAGE ...): installs the missing ones as root on Debian, else stops and names them.
define require
missing=""; \
$(foreach package,$(1),$(have-$(package)) >/dev/null || missing+=" $(package)";) \
if [[ -z "$$missing" ]]; then exit 0; fi; \
if [[ $$(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then \
    echo "Missing:$$missing. Install them and run make again: sudo apt-get install$$missing" >&2; exit 1; \
fi; \
echo "Installing$$missing"; \
export DEBIAN_FRONTEND=noninteractive; \
told="$$({ apt-get update && apt-get install -y -o DPkg::Lock::Timeout=120 --no-install-recommends $$missing; } 2>&1)" \
    || { echo "$$told" >&2; exit 1; }
endef

help:
	@echo "make demo    a fleet on this machine: swaps under load, a bad release undone (about a minute)"
	@echo "make test    everything: check, then all tests"
	@echo "make check   lint, format, types, who imports whom, the tidy rules, the lock"
	@echo "make fmt     format, and fix what can be fixed by itself"
	@echo "make bench   the benchmarks"
	@echo "make wheels  $(WHEELS): Rollway and all that it needs, for hosts without a network"
	@echo "make setup   the virtual environment in $(VENV), from requirements.lock"
	@echo "make lock    resolve requirements.lock anew from pyproject.toml (needs uv)"
	@echo "make clean   remove everything that make made"

demo: requires-demo $(STAMP)
	@$(RUN)/rollway demo $(ARGS)

test: requires-test check
	@$(RUN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: requires-demo $(STAMP)
	@$(RUN)/ruff check --quiet
	@$(RUN)/ruff format --check --quiet || { $(RUN)/ruff format --check || echo "Run make fmt." >&2; exit 1; }
	@$(RUN)/mypy --no-error-summary hatch_build.py $(wildcard agent tests bench middleware)
	@found="$$($(RUN)/lint-imports --no-logo 2>&1)" || { echo "$$found" >&2; exit 1; }
	@$(RUN)/python -m pytest -qq tests/test_tidy.py tests/test_lock.py
	@echo "check: clean"

fmt: requires-demo $(STAMP)
	@$(RUN)/ruff check --fix --quiet || true
	@$(RUN)/ruff format

bench: requires-demo $(STAMP)
	@for script in bench/[a-z]*.py; do echo "== $$script"; $(RUN)/python "$$script" $(ARGS); done

setup: requires-demo $(STAMP)

requires-demo:
	@$(call require,python3-venv git gcc libc6-dev)

requires-test:
	@$(call require,python3-venv git gcc libc6-dev nodejs iproute2 systemd curl faketime systemd-container mmdebstrap e2fsprogs qemu-system-x86 haproxy)

# An interrupted or foreign venv is made anew; a good one only gets what changed.
$(STAMP): requirements.lock pyproject.toml hatch_build.py $(wildcard native/*) | requires-demo
	@if ! $(RUN)/python -c '$(USABLE)' 2>/dev/null || ! $(RUN)/python -m pip --version >/dev/null 2>&1; then \
	    python="$$($(FIND_PYTHON))"; \
	    if [[ -z "$$python" ]]; then \
	        echo "None of \"$(PYTHON)\" is a Python 3.11 or newer with venv. Name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	    fi; \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing what requirements.lock names into $(VENV)"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check --no-input --require-hashes -r requirements.lock
	@$(RUN)/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $@

# Only what requirements-hosts.lock names, and only with the digests that stand there.
wheels: requires-demo $(STAMP)
	@rm -rf $(WHEELS)
	@$(RUN)/python -m pip download -qq --disable-pip-version-check --no-input --no-deps --require-hashes $(HOSTS) \
	    -d $(WHEELS) -r requirements-hosts.lock
	@$(RUN)/python -m pip wheel -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -w $(WHEELS) \
	    . ./middleware
	@echo "$(WHEELS): $$(ls $(WHEELS) | wc -l) wheels, $$(du -sh $(WHEELS) | cut -f 1)"

lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml \
	    --extra all --group test --group dev -o requirements.lock
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml \
	    --extra all --constraints requirements.lock -o requirements-hosts.lock

clean:
	@rm -rf $(VENV) dist agent/*/*.so agent/linux/forker .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find agent tests bench config middleware -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
