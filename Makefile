# Every word is one line that also works without make; README.md lists the lines for Windows.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# scanpy's numba would otherwise set torch back to all cores
export NUMBA_NUM_THREADS ?= $(OMP_NUM_THREADS)
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help setup tour lab test lessons lessons-test lessons-seeds study mutants peers bench book student clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## make .venv and install everything into it

$(VENV)/.ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[all]"
	@touch $@

tour: setup ## lesson 0001 on real cells; writes the notebook and a page under out/tour/
	$(BIN)/python -m scdl_teach tour

lab: setup ## JupyterLab in the folder of the lessons
	$(BIN)/python -m jupyter lab notebooks

test: setup ## unit tests, the suite of the contract, claims on one seed, the tour
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=120 -p no:randomly notebooks/00_start/0001_tour.ipynb

lessons: setup ## run all lessons again and store what they show
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/execute.sh $(or $(NB),$(sort $(wildcard notebooks/[0-9]*/*.ipynb)))

lessons-test: setup ## run all lessons and compare what is marked
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=120 -p no:randomly -n 2 --dist loadscope notebooks --ignore=notebooks/recipes

lessons-seeds: setup ## the claims of lessons on five seeds, their ranges written into seen=: make lessons-seeds NB=notebooks/...
	$(BIN)/python tools/seeds.py --write $(or $(NB),$(sort $(wildcard notebooks/[0-9]*/*.ipynb)))

study: setup ## every claim and comparison on seeds 0-4, into book/results/
	$(BIN)/python tools/study.py

mutants: setup ## planted faults: which ones the fast tests notice (KEY="saucie desc" for some)
	$(BIN)/python tools/mutants.py $(if $(KEY),--only $(KEY))

peers: setup ## equality with other packages, in an environment of its own
	$(BIN)/python tools/peers.py

bench: setup ## times and memory
	$(BIN)/python tests/benchmarks/run.py

book: setup ## the book, in book/_build/html/index.html
	$(BIN)/python tools/build_book.py

student: setup ## the lessons without solutions, in out/student/
	$(BIN)/python tools/student.py

clean: ## remove what can be made again
	rm -rf book/_build book/_static/mathjax book/systems out build dist .pytest_cache .ruff_cache
