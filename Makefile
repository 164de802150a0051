# Everyday commands. `make check` is the inner loop: under four minutes on two cores.
PYTHON ?= .venv/bin/python
PYTEST = $(PYTHON) -m pytest -n auto

.PHONY: check lint types test parity docs demo tables api pictures proven

check: lint types
	$(PYTEST) -m "not slow and not train and not hub and not people and not graph" --ignore=tests/test_parity.py

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTEST)
	$(PYTHON) -m pytest --doctest-modules dfer_zoo

parity:
	$(PYTHON) -m tests.parity tests/parity

docs:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

# write the generated tables and the snapshot of the public API again
tables:
	$(PYTHON) docs/tables.py

api:
	$(PYTHON) -m tests.test_api

demo:
	$(PYTHON) -m dfer_zoo demo

# every picture of the docs: the timeline of a drawn clip, the diagrams, the import graph, the plots of the benchmarks
pictures:
	$(PYTHON) docs/pictures.py
	$(PYTHON) docs/diagrams.py
	$(PYTHON) docs/import_graph.py
	$(PYTHON) examples/benchmark.py --plot docs/pictures

# run all parity cases and write the worst error of each system into docs/parity.md
proven:
	$(PYTHON) docs/proven.py
