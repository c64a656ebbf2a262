# Two commands for everybody: `make demo` shows the main job, `make test` proves it.
# Both make their own environment in .venv; all they need is Python 3.11 or later, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := Testing/constraints.txt
LIBRARY := $(shell find LesionDecomp/LesionDecompLib LesionDecomp/Resources -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: demo test coverage bench lint types docs fuzz faults clean

demo: $(VENV)/installed
	$(BIN)/lesiondecomp demo -o demo --overwrite

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	PYTHONPATH=LesionDecomp $(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGUMENTS)

coverage: $(VENV)/installed-test
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGUMENTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/installed-test
	$(BIN)/python -m mypy

docs: $(VENV)/installed-test
	$(BIN)/python -m pdoc --docformat restructuredtext --output-directory build/docs LesionDecompLib
	@echo "API pages: build/docs/index.html"

# Some 12,000 mutated inputs for all loaders; about ten minutes. See Documentation/trust.md.
fuzz: $(VENV)/installed-test
	PYTHONPATH=LesionDecomp:Testing/support:Testing/tools $(BIN)/python -m fuzz $(FUZZ_ARGUMENTS)

# Times of the main job here; `pip install --no-deps lungmask` adds the comparison. See Documentation/performance.md.
bench: $(VENV)/installed
	$(BIN)/lesiondecomp bench $(BENCH_ARGUMENTS)

# Some 220 kills of running jobs, each run again and compared with an unbroken run. See Documentation/trust.md.
faults: $(VENV)/installed-test
	PYTHONPATH=LesionDecomp:Testing/support:Testing/tools $(BIN)/python -m faults $(FAULTS_ARGUMENTS)

clean:
	rm -rf $(VENV) demo build dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(CONSTRAINTS) $(LIBRARY) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) '.[test]'
	touch $@
