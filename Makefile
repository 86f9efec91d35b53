# `make book` and `make test` do all their own set-up. `make help` lists the rest.
SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup book chapter test check-site check-browser check-notebooks check-links check-replications lighthouse lint format bench replicate language-model serve clean distclean

VENV ?= .venv
PYTHON ?=
PORT ?= 8000
NAME ?=
RUNS ?= 8
TABLE ?= replications
RUN = "$(VENV)/bin/python"
PYTHON_CODE = src tests tools benchmarks

help: ## List the commands
	@echo "Sparse but Right: an executable book on sparse autoencoders."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Settings: PYTHON=<interpreter, 3.11 to 3.13>  VENV=<folder>  PORT=<number, for serve>"
	@echo "          JOBS=<chapters that run at a time; default: one for each core>"
	@echo "          STRICT=<1: a false claim fails the build, as in CI; 0: it is marked and listed>"
	@echo "          RUNS=<replications of each chapter, for replicate>  TABLE=<folder to keep them in>"
	@echo "          OPTIONS=<of language-model and replicate; OPTIONS=--help lists them>"
	@echo "          SAEBOOK_MODEL, SAEBOOK_TEXT=<what the last chapters read, from Hugging Face>"

setup: ## Make or mend the environment (the other commands do it by themselves)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/setup_env.sh

book: setup ## Execute every chapter and build the site
	@$(RUN) tools/build_book.py

chapter: setup ## Execute one chapter and build a preview of it: make chapter NAME=true_l0
	@test -n "$(NAME)" || { echo "error: no chapter named. Expected: make chapter NAME=<file in book/, without .md>" >&2; exit 2; }
	@$(RUN) tools/build_book.py "$(NAME)"

test: setup ## Run the tests of the library
	@$(RUN) -m pytest -n auto --dist worksteal

check-site: setup ## Run the checks on the built site
	@$(RUN) -m pytest tests/site

check-browser: setup ## Check the built site in headless Chromium: sliders, accessibility, sizes
	@$(RUN) -m pytest tests/browser

replicate: setup ## Run chapters with other seeds and as on other processors (hours; goes on if interrupted)
	@$(RUN) tools/replicate.py --runs "$(RUNS)" --table "$(TABLE)" $(NAME) $(OPTIONS)

check-replications: setup ## Say in how many replications each claim held; fail if one fell
	@$(RUN) tools/replicate.py --check --table "$(TABLE)" $(NAME) $(OPTIONS)

lighthouse: setup ## Score a chapter with Lighthouse on a slow phone (needs node and a network)
	@$(RUN) tools/lighthouse.py $(NAME)

check-links: setup ## Check the book's links to other sites (needs a network)
	@$(RUN) tools/check_links.py

check-notebooks: setup ## Run the published notebooks outside the repository and compare them
	@$(RUN) tools/run_notebooks.py $(NAME)

lint: setup ## Check code, chapters, types, spelling and workflows
	$(RUN) -m ruff check $(wildcard $(PYTHON_CODE))
	$(RUN) -m ruff format --check $(wildcard $(PYTHON_CODE))
	$(RUN) tools/chapters.py check
	$(RUN) -m mypy
	files=$$(git ls-files) && $(RUN) -m codespell_lib $$files book/*.md
	$(RUN) -m jactionlint --no-hints --ignore unpinned-uses

format: setup ## Format code and chapters
	$(RUN) -m ruff check --fix-only $(wildcard $(PYTHON_CODE))
	$(RUN) -m ruff format $(wildcard $(PYTHON_CODE))
	$(RUN) tools/chapters.py format

bench: setup ## Run every benchmark
	@set -e; for file in benchmarks/[!_]*.py; do \
	    echo "== $$file"; $(RUN) "$$file"; \
	done

# Without these, glibc gives the memory of each step back and asks for it again: twice as slow.
language-model: setup ## Train the embedded language model anew (half an hour; goes on if interrupted)
	@MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 \
	    $(RUN) tools/train_language_model.py $(OPTIONS)

serve: setup ## Serve the built site on this machine
	@test -f _build/html/index.html || { echo "error: no site in _build/html. Run 'make book' first." >&2; exit 1; }
	@echo "Serving the book at http://localhost:$(PORT)/ (Ctrl-C stops it)"
	@$(RUN) -m http.server "$(PORT)" --bind 127.0.0.1 --directory _build/html

clean: ## Remove the built site and all caches
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find . -name .venv -prune -o -name .git -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## Remove the environment too
	rm -rf .venv src/saebook.egg-info
