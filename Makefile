# Bare `make` lists what there is. Everything lives in $(VENV); nothing is installed outside the checkout.

VENV ?= .venv
ARGS ?=
EXAMPLES ?= 2000
PYTEST_ARGS ?=
JOBS ?= 4
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
WANTED = pyproject.toml constraints.txt hatch_build.py console/package-lock.json $(wildcard console/*.js) $(shell find console/src -type f)

.DEFAULT_GOAL := help
.PHONY: help install start test test-root test-slow test-gpu test-engines test-lower fuzz laws lint format bench bench-batch bench-console bench-models bench-placement bench-scale tiny-model docs docs-ui guide test-guide estimates wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make the virtual environment and install GPUStack into it
	@version=$$($(VENV)/bin/gpustack version) || { echo "GPUStack is installed in $(VENV), but does not run" >&2; exit 1; }; \
	    echo "GPUStack $$version runs: look over this machine with $(VENV)/bin/gpustack doctor, then $(VENV)/bin/gpustack start"

start: $(VENV)/.installed ## Start GPUStack here, e.g. make start ARGS="--port 8080"
	@exec $(VENV)/bin/gpustack start $(ARGS)

test: $(VENV)/.installed-dev ## Run the tests that need no root, e.g. make test JOBS=0 PYTEST_ARGS="tests/nursery -x"
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not root and not slow and not gpu and not engines" -rs $(PYTEST_ARGS)

test-root: $(VENV)/.installed-dev ## Run the tests that need root (network namespaces, systemd)
	@[ "$$(id -u)" = 0 ] || { echo "These tests need root: sudo make test-root" >&2; exit 1; }
	$(VENV)/bin/python -m pytest -m "root and not engines" -rs $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev ## Run the tests that take long: lost machines under llama.cpp's RPC, further kinds of databases
	$(VENV)/bin/python -m pytest -m slow -rs $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-dev ## Run the tests that need an NVIDIA GPU
	$(VENV)/bin/python -m pytest -m gpu -rs $(PYTEST_ARGS) tests/gpu

test-guide: $(VENV)/.installed-dev ## Run every command of the guide that a machine like this can run
	$(VENV)/bin/python -m pytest -m "not root" -rs $(PYTEST_ARGS) tests/guide

test-engines: $(VENV)/.installed-dev ## Run the tests of large engines, which make environments of some GB first; all of them as root
	$(VENV)/bin/python -m pytest -m engines -rs $(PYTEST_ARGS) tests/engines_real

test-lower: ## Run the tests on the oldest versions we say we work with
	@contrib/venv.sh .venv-lower
	.venv-lower/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	GPUSTACK_SKIP_UI=1 .venv-lower/bin/python -m pip install --quiet --constraint constraints-lower.txt --editable . --group dev
	.venv-lower/bin/python -m pytest -m "not root and not slow and not gpu and not engines" -rs $(PYTEST_ARGS)

fuzz: $(VENV)/.installed-dev ## Try the fuzz tests with new inputs, e.g. make fuzz EXAMPLES=20000 PYTEST_ARGS="-k http"
	FUZZ_EXAMPLES=$(EXAMPLES) $(VENV)/bin/python -m pytest -m "not root" tests/hardening $(PYTEST_ARGS)

laws: $(VENV)/.installed-dev ## Try the laws of decisions in more worlds, e.g. make laws EXAMPLES=20
	LAW_EXAMPLES=$(EXAMPLES) $(VENV)/bin/python -m pytest tests/policy tests/server/test_batch.py tests/server/test_simulation.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## Check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev ## Put the code into shape
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.installed-dev ## Measure the gateway and the start, e.g. make bench ARGS="--rounds 4"
	$(VENV)/bin/python benchmarks/gateway.py $(ARGS)
	$(VENV)/bin/python benchmarks/startup.py

bench-placement: $(VENV)/.installed-dev ## Measure finding a place among 1000 workers, beside an earlier commit: AGAINST=0ec0272
	$(VENV)/bin/python benchmarks/placement.py --json $(if $(AGAINST),--against $(AGAINST))

bench-scale: $(VENV)/.installed-dev ## Measure what 1000 workers cost a server, beside an earlier commit: AGAINST=0ec0272
	$(VENV)/bin/python benchmarks/scale.py --json $(if $(AGAINST),--against $(AGAINST))

bench-batch: $(VENV)/.installed-dev ## Measure how many of those that wait together get a place, beside the most that OR-tools finds
	$(PIP) "ortools>=9.15"
	$(VENV)/bin/python benchmarks/batch.py $(ARGS)

bench-console: $(VENV)/.installed-dev ## Measure the web console in Chromium: size, paint, scrolling through 1000 workers, memory
	$(VENV)/bin/python benchmarks/console.py --json $(ARGS)

bench-models: $(VENV)/.installed-dev ## Measure the start over two workers (tests/make-llama-rpc first), large files, and facts of models
	$(VENV)/bin/python benchmarks/gang_start.py
	$(VENV)/bin/python benchmarks/files.py --size 4
	$(VENV)/bin/python benchmarks/facts.py

tiny-model: $(VENV)/.installed ## Make a real model of 3 MB to try things with: tiny.gguf
	$(VENV)/bin/python -m tests.models tiny $(ARGS) tiny.gguf

docs: $(VENV)/.installed-dev ## Write anew the documents that follow from the code
	@for name in api lifecycle metrics options; do \
	    $(VENV)/bin/python -m tests.documents $$name > docs/$$name.md.new && mv docs/$$name.md.new docs/$$name.md || exit 1; \
	done
	@$(VENV)/bin/python -m tests.attacks > docs/attacks.md.new && mv docs/attacks.md.new docs/attacks.md
	@$(VENV)/bin/python -m tests.cli.document > docs/cli.md.new && mv docs/cli.md.new docs/cli.md
	@$(VENV)/bin/python -m tests.guide.chinese_options > docs/guide/zh/options.md.new && mv docs/guide/zh/options.md.new docs/guide/zh/options.md
	@$(VENV)/bin/gpustack config --format env > contrib/systemd/gpustack.env

guide: $(VENV)/.installed-dev ## Build the guide that the daemon shows at /guide/, and tell where a link leads nowhere
	$(VENV)/bin/python docs/guide/build.py

estimates: $(VENV)/.installed-dev ## Write anew how far estimates of GGUF models are from the engine's figures
	$(VENV)/bin/python -m tests.policy.estimate_table

docs-ui: $(VENV)/.installed ## Build the web console and the pages of /docs and /redoc anew
	rm -f gpustack/api/static/.built-from
	$(PIP) --no-deps --editable .

wheel: $(VENV)/.installed ## Build a wheel into dist/
	$(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean: ## Remove what was built: environments, pages, caches
	rm -rf .venv .venv-lower dist build gpustack/api/static gpustack/api/guide console/node_modules tiny.gguf
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: $(WANTED)
	@contrib/venv.sh $(VENV)
	@echo "Installing GPUStack into $(VENV), which takes a minute or two"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --upgrade pip
	@$(PIP) --group dev
	@touch $@
