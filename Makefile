# Two commands: `make quickstart` and `make test`. Both build .venv first, from pinned versions.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test fuzz test-core test-release test-matrix lint types bench learning lock clean test-verl lock-verl test-tinker \
  docs test-docs lock-docs

quickstart: $(READY)
	$(BIN)/viprl quickstart $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 $(ARGS)

# More than 200,000 cases of the property tests, other ones in each run; the usual tests run a hundredth of them. Then, if
# atheris is installed, ten seconds of coverage-guided cases for each parser.
fuzz: $(READY)
	VIPRL_FUZZ_CASES=5000 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 tests/fuzz \
	  -p no:logging --hypothesis-show-statistics $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/atheris_targets.py 10

# The core with its oldest and newest dependencies and on later versions of Python, and the TRL tests on the oldest, the
# locked and the newest version of TRL; ARGS names other versions of TRL.
test-matrix: $(READY)
	failed=0; \
	sh tests/core_matrix.sh $(BIN)/python $(CORE_TESTS) || failed=1; \
	sh tests/trl_matrix.sh $(BIN)/python $(ARGS) || failed=1; \
	exit $$failed

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/step_cost.py $(ARGS)

# Learning curves of the tiny model, about twelve minutes on two cores; writes runs/learning/report.html.
learning: $(READY)
	PYTHONPATH=benchmarks $(BIN)/python -m learning $(ARGS)

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

# The core with its core dependencies alone, in an environment outside the clone, named after what decides its content. The
# copy of viprl that brings the dependencies is not used: PYTHONPATH comes first.
CORE_TESTS := tests/core tests/contracts tests/saved tests/test_vip.py \
  tests/test_advantages.py tests/test_outcomes.py tests/test_prompts.py tests/docs/test_doc_python.py
CORE_ENV := $(HOME)/.cache/viprl/core-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-12)
CORE_PYTHON := $(CORE_ENV)/bin/python

test-core: $(CORE_ENV)/.ready
	PYTHONPATH=$(CURDIR)/src OMP_NUM_THREADS=1 $(CORE_PYTHON) -m pytest -p no:cacheprovider $(CORE_TESTS) $(ARGS)

$(CORE_ENV)/.ready:
	mkdir -p $(dir $(CORE_ENV))
	flock $(CORE_ENV).lock sh -ec ' \
	  test -e $@ && exit; \
	  rm -rf $(CORE_ENV); \
	  $(PYTHON) -m venv $(CORE_ENV) || { rm -rf $(CORE_ENV) && $(PYTHON) -m venv --without-pip $(CORE_ENV) \
	    && $(PYTHON) -m pip --python $(CORE_PYTHON) install --quiet pip; }; \
	  $(CORE_PYTHON) -m pip install --quiet --constraint requirements.lock . pytest hypothesis; \
	  touch $@'

# The sdist and the wheel, built as for a release, each used in a clean environment; the core's tests run with the wheel.
test-release: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/release.py $(CORE_TESTS)

# verl and TRL cannot share an environment. This one lies outside the clone, named after its lock, and holds no viprl:
# PYTHONPATH brings the source of this clone, whose entry points egg_info writes down.
VERL_ENV := $(HOME)/.cache/viprl/verl-$(shell sha256sum requirements-verl.lock | cut -c1-12)
VERL_PYTHON := $(VERL_ENV)/bin/python

test-verl: $(VERL_ENV)/.ready
	$(VERL_PYTHON) -c "import setuptools; setuptools.setup()" -q egg_info
	PYTHONPATH=$(CURDIR)/src OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	  $(VERL_PYTHON) -m pytest -W ignore::UserWarning tests/engines/verl $(ARGS)

$(VERL_ENV)/.ready:
	mkdir -p $(dir $(VERL_ENV))
	flock $(VERL_ENV).lock sh -ec ' \
	  test -e $@ && exit; \
	  rm -rf $(VERL_ENV); \
	  $(PYTHON) -m venv $(VERL_ENV) || { rm -rf $(VERL_ENV) && $(PYTHON) -m venv --without-pip $(VERL_ENV) \
	    && $(PYTHON) -m pip --python $(VERL_PYTHON) install --quiet pip; }; \
	  $(VERL_PYTHON) -m pip install --quiet torch==2.13.0; \
	  $(VERL_PYTHON) -m pip install --quiet -r requirements-verl.lock; \
	  touch $@'

# The versions of the environment above become the pinned ones.
lock-verl:
	{ echo "# Pinned versions of the environment that tests the verl engine; torch==2.13.0 comes first (see Makefile)."; \
	  $(VERL_PYTHON) -m pip freeze --all | grep -v -i -E '^(torch|viprl|pip)=='; } > requirements-verl.lock.new
	mv requirements-verl.lock.new requirements-verl.lock

# tinker-cookbook only adds packages to .venv; they lie in a folder outside the clone, named after their lock.
TINKER_ENV := $(HOME)/.cache/viprl/tinker-$(shell sha256sum requirements-tinker.lock | cut -c1-12)

test-tinker: $(READY) $(TINKER_ENV)/.ready
	PYTHONPATH=$(TINKER_ENV) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	  $(BIN)/python -m pytest tests/engines/tinker $(ARGS)

$(TINKER_ENV)/.ready:
	mkdir -p $(dir $(TINKER_ENV))
	flock $(TINKER_ENV).lock sh -ec ' \
	  test -e $@ && exit; \
	  rm -rf $(TINKER_ENV); \
	  $(BIN)/python -m pip install --quiet --no-deps --target $(TINKER_ENV) -r requirements-tinker.lock; \
	  touch $@'

# The site of the documentation, in ./site. The sources are read, not imported, so this environment lies outside the clone and holds
# no viprl either.
DOCS_ENV := $(HOME)/.cache/viprl/docs-$(shell sha256sum requirements-docs.lock | cut -c1-12)
DOCS_PYTHON := $(DOCS_ENV)/bin/python

docs: $(DOCS_ENV)/.ready
	PATH=$(DOCS_ENV)/bin:$$PATH NO_MKDOCS_2_WARNING=1 $(DOCS_PYTHON) -m mkdocs build --strict --quiet $(ARGS)

# Every block of code of the pages.
test-docs: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest tests/docs $(ARGS)

$(DOCS_ENV)/.ready:
	mkdir -p $(dir $(DOCS_ENV))
	flock $(DOCS_ENV).lock sh -ec ' \
	  test -e $@ && exit; \
	  rm -rf $(DOCS_ENV); \
	  $(PYTHON) -m venv $(DOCS_ENV) || { rm -rf $(DOCS_ENV) && $(PYTHON) -m venv --without-pip $(DOCS_ENV) \
	    && $(PYTHON) -m pip --python $(DOCS_PYTHON) install --quiet pip; }; \
	  $(DOCS_PYTHON) -m pip install --quiet -r requirements-docs.lock; \
	  touch $@'

# The versions of the environment above become the pinned ones.
lock-docs:
	{ echo "# Pinned versions of the environment that builds the site of the documentation (make docs)."; \
	  $(DOCS_PYTHON) -m pip freeze --all | grep -v -i -E '^(viprl|pip|setuptools)=='; } > requirements-docs.lock.new
	mv requirements-docs.lock.new requirements-docs.lock

# The versions of this environment become the pinned ones.
lock:
	{ echo "# Pinned versions of the development environment; torch==2.13.0 is installed before these (see Makefile)."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -i -E '^(torch|viprl|pip)=='; } > requirements.lock

clean:
	rm -rf .venv build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
