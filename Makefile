# One line a target; `make` alone lists them. All settings of the tools are in pyproject.toml.
SPEC ?= digits
TRIALS ?=
PYTHON ?= python3
# Address of a package index with CPU-only builds of torch, for machines without a GPU (see README.md).
TORCH_INDEX ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help install study test test-fast torture bad-inputs lint types check ui dashboard docs reference export stop bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

install: $(READY) ## make .venv with the pinned packages

study: $(READY) ## run a study: make study SPEC=wine TRIALS=50
	$(BIN)/studies run $(SPEC) $(if $(TRIALS),--trials $(TRIALS))

test: $(READY) ## all tests that need no GPU
	$(BIN)/pytest -n auto --dist loadfile

test-fast: $(READY) ## tests without a server or a whole study
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

torture: $(READY) ## kill everything N times: make torture N=2000 RECORD=1 (SEED=... to repeat)
	TORTURE_N=$(or $(N),100) TORTURE_SEED=$(SEED) $(BIN)/pytest tests/torture
	$(BIN)/python -m tests.torture.summary $(if $(RECORD),--record)

bad-inputs: $(READY) ## read 50,000 bad files and specs: make bad-inputs N=1000
	$(BIN)/python -m benchmarks.bad_input --n $(or $(N),50000)

lint: $(READY) ## style and floors
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(READY) ## mypy, strict
	$(BIN)/mypy

check: lint types test ## what CI runs

ui: $(READY) ## start or find the tracking server, print its address
	$(BIN)/studies ui

dashboard: $(READY) ## optuna-dashboard on the study database, reading only: make dashboard PORT=8081
	$(BIN)/python -m studies.dashboard $(PORT)

docs: $(READY) ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

reference: $(READY) ## make docs/spec.md and docs/spec.schema.json from the code
	$(BIN)/python -m studies.reference docs

export: $(READY) ## export the best network of SPEC
	$(BIN)/studies export $(SPEC)

stop: $(READY) ## end the tracking server
	$(BIN)/studies stop

bench: $(READY) ## the measured claims, beside what people do today
	$(BIN)/python -m benchmarks.default_study
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.population
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.asking
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.tracking
	$(BIN)/python -m benchmarks.display
	$(BIN)/python -m benchmarks.pace
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.search_quality
	$(BIN)/python -m benchmarks.transfer

clean: ## remove what can be made again; studies, models and runs in mlruns/ stay
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
