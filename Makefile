PYTHON ?= python3
BIN := .venv/bin
PYTHON_GPU ?= $(BIN)/python

.PHONY: demo test test-fast bench bench-gpu setup lint docs clean

## eight effects and few-step sampling become one LoRA, on real pictures, with a report to look at
demo: setup
	$(BIN)/clora run recipes/quickstart.yaml

# a file at a time on every core, long files first: tests/processor_time.py orders them
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

## every test
test: setup
	$(PYTEST) --processor-time .pytest_cache/processor_time.json

## every test but those marked slow: they take more than a second of processor time, or three with their file's others
test-fast: setup
	$(PYTEST) -m "not slow"

## how much a LoRA linear costs over the frozen one, on this CPU; three minutes
bench: setup
	$(BIN)/python benchmarks/kernel_lora.py --device cpu --out runs/kernel_lora_cpu.csv

## everything that a GPU is to show, measured and compared with what was aimed at (PYTHON_GPU: one whose torch sees it)
bench-gpu:
	$(PYTHON_GPU) benchmarks/on_gpu.py

## .venv with pinned versions (CPU torch); does nothing when it is up to date
setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

## style, types, and which room may import which
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

## the documentation site in build/site, with every link checked
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv runs build .pytest_cache .ruff_cache .import_linter_cache
