# Two commands: `make quickstart` and `make test`. Both build .venv first, from pinned versions.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test lint types bench lock clean

quickstart: $(READY)
	$(BIN)/viprl quickstart $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/step_cost.py $(ARGS)

# torch comes first and alone, so that no other package draws in a build with CUDA. Debian's Python has no ensurepip
# without python3-venv; then its pip fills the environment.
$(READY): requirements.lock pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv || { rm -rf .venv && $(PYTHON) -m venv --without-pip .venv \
	  && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

# The versions of this environment become the pinned ones.
lock:
	{ echo "# Pinned versions of the development environment; torch==2.13.0 is installed before these (see Makefile)."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -i -E '^(torch|viprl|pip)=='; } > requirements.lock

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
