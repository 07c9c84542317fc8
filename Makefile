# Everything happens in a virtual environment of the checkout's own, .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.demo  ## hubs before and after, on real data, on the embedded engines; writes report.html
	$(BIN)/dbnorm-vdb demo --report report.html $(DEMO)

test: .venv/.test  ## the whole suite
	$(BIN)/python -m pytest -n 4 --dist loadgroup

lint: .venv/.dev  ## format, lint, types, direction of dependencies, compose files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.*.yaml

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.created:
	$(PYTHON) -m venv .venv
	touch $@

# one stamp for each extra: .venv/.test is `pip install -e ".[test]"`
.venv/.%: pyproject.toml .venv/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@
