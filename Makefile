# Needs Python 3.11, make and a package index; `make` lists the targets.
PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := serve,tracing,train,export,studio,fused,rtx,cli,jpeg,datasets,ray,dev
# tests/conftest.py says how many workers, and which files come first.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
ARGS ?=
# Images: `make image BUILDER='docker buildx build' IMAGE=ghcr.io/team/labelmint
# PLATFORM=linux/amd64,linux/arm64 BUILD_ARGS='--push --sbom=true --provenance=mode=max'`.
BUILDER ?= docker build
TARGET ?= cpu
IMAGE ?= labelmint
PLATFORM ?=
BUILD_ARGS ?=
# URL of the repository, for the labels of images and the chart's home.
SOURCE ?=
# The chart: `make chart REGISTRY=oci://ghcr.io/team/charts SIGN='--key NAME --keyring FILE'`.
REGISTRY ?=
SIGN ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' labelmint/__init__.py)
BENCHES := label_branch stream transport devices replicas shared_memory latency trainer_wait heads

.DEFAULT_GOAL := help
.PHONY: help setup check check-types check-types-3.10 check-rest test test-all demo bench soak \
  protos image chart clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv with pinned dependencies; instant if it is up to date

# The version first: pip's message about it names a dependency. --clear: a setup that failed leaves
# nothing behind.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing), but Python 3.11 is needed;" \
	    "install it (Debian 12: apt install python3.11-venv) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; \
	  exit 1; } >&2
	@echo "installing into $(VENV): 90 seconds on two idle cores, mostly without a line"
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) -q hatchling editables
	$(PIP) -q --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

# The three targets can run at once: mypy keeps one cache for each version of Python.
check: $(READY) ## check format, lint, types, stubs and import rules
	@$(MAKE) --no-print-directory --jobs 2 --output-sync --keep-going \
	  check-types check-types-3.10 check-rest

check-types: $(READY)
	$(BIN)/mypy

# Keeps newer interfaces out of the packages that support 3.10. numpy's type stubs need 3.11, hence
# the two switches.
check-types-3.10: $(READY)
	$(BIN)/mypy --python-version 3.10 --no-warn-return-any --no-warn-unused-ignores \
	  labelmint labelmint_engine bundle engines service

check-rest: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint protos
	$(BIN)/python protos/generate.py --check
	$(BIN)/pytest -q --noconftest tests/test_imports.py

test: $(READY) ## run the tests (4 to 7 minutes on two cores); ARGS="-k name" selects
	$(PYTEST) $(ARGS)

test-all: $(READY) ## run the long tests too: kills, images, quality of the demo, training
	$(PYTEST) -m "not slow" $(ARGS)

demo: $(READY) ## train, export, serve and measure the demo (minutes); writes demo/
	$(BIN)/python -m examples.demo $(ARGS)

bench: $(READY) ## run the benchmarks that take minutes; each prints its figures
	@set -e; for name in $(BENCHES); do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name; \
	done

soak: $(READY) ## the slow fault and load tests, and attacks in full size
	$(BIN)/pytest -m slow --timeout 0 $(ARGS)

protos: $(READY) ## regenerate the stubs in labelmint/v1 from protos/
	$(BIN)/python protos/generate.py

image: ## build a container image: TARGET=cpu, gpu, gpu-trt, gpu-rtx or export; IMAGE, PLATFORM, BUILD_ARGS
	$(BUILDER) --target $(TARGET) --tag $(IMAGE):$(VERSION)-$(TARGET) \
	  $(if $(PLATFORM),--platform $(PLATFORM)) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(shell git rev-parse HEAD) --build-arg SOURCE=$(SOURCE) $(BUILD_ARGS) .

chart: $(READY) ## package the chart into dist/; REGISTRY=oci://HOST/PATH pushes it, SIGN signs it
	$(BIN)/python -m helm.package_chart --source "$(SOURCE)" --push "$(REGISTRY)" $(SIGN)

clean: ## remove environments, caches and outputs
	rm -rf $(VENV) .venv-protos .ci/cache .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  build dist demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
