# omnicorn: everything a developer or CI runs. `make` alone lists the targets.
# Only Python 3.11+, pip and make are needed; the rest goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PORT   ?= 8000

# Compiled tests are kept: to rewrite their assertions anew costs each run ten seconds a core.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-e2e test-protocols test-rest test-newest test-free test-long lint format types layers cov bench bench-quick conformance \
	test-asgiref test-django test-channels test-daphne test-toolkit clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "omnicorn needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

run: $(READY) ## serve examples/hello.py on 127.0.0.1:8000
	$(BIN)/omnicorn --app-dir examples --port $(PORT) hello:app

# Three runs beside each other. To hand out small tests one by one would cost as much as to run
# them, so only what waits a good deal is handed out; a file's tests stay together, as they share
# servers, and the long files come first. With TESTS=... those alone are run.
QUICK = $(BIN)/python -m pytest -m 'not slow'
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync)
test: $(READY) ## the quick suite, on two cores or more (under 3 minutes)
ifdef TESTS
	$(QUICK) $(TESTS)
else
	@$(MAKE) --no-print-directory --jobs=3 --keep-going $(SYNC) test-e2e test-protocols test-rest
endif
test-e2e: ## of it, what starts processes of its own
	$(QUICK) -q -n 2 --dist loadfile --no-loadscope-reorder tests/e2e
test-protocols: ## of it, the protocols' engines and the contracts of the ports below them
	$(QUICK) -q tests/unit/protocols tests/contracts tests/conformance
test-rest: ## of it, all else
	$(QUICK) -q $(foreach taken,e2e unit/protocols contracts conformance,--ignore tests/$(taken))
test-e2e test-protocols test-rest: $(READY)

# What pyenv has installed counts, chosen or not.
NEWER := python3.15 python3.14 python3.13 python3.12 \
	$(shell ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[2-9].*/bin/python 2>/dev/null | sort -rV)
test-newest: ## the toolkit's tests on the newest Python that is found
	@for newest in $(NEWER); do \
		if $$newest -c '' 2>/dev/null; then \
			exec $(MAKE) test PYTHON=$$newest VENV=$(VENV)-newest TESTS=tests/unit/toolkit; \
		fi; \
	done; echo "no Python newer than 3.11 is found; the toolkit was not tested on one"

# Of what has no wheel for such a Python, nothing is built; tests that need it are skipped.
FREE := python3.15t python3.14t python3.13t \
	$(shell ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[3-9]*t/bin/python /opt/*/bin/python3.1[3-9]t 2>/dev/null | sort -rV)
test-free: ## the toolkit's tests on a free-threaded Python, if one is found
	@for free in $(FREE); do \
		if $$free -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED")' 2>/dev/null; then \
			set -e; $$free -m venv $(VENV)-free; \
			$(VENV)-free/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
				pytest pytest-timeout hypothesis trio anyio sniffio 'asgiref>=3.13,<3.14' \
				hpack httpx starlette 'django>=5.2' quart; \
			$(VENV)-free/bin/python -VV; \
			exec env PYTHONPATH=$(CURDIR)/src PYTHON_GIL=0 $(VENV)-free/bin/python -m pytest -q -m 'not slow' \
				$(or $(TESTS),tests/unit/toolkit); \
		fi; \
	done; echo "no free-threaded Python (python3.14t, python3.13t) is found; the toolkit was not tested on one"

test-long: $(READY) ## the long runs: big fuzzing rounds, more examples, ten thousand connections
	$(BIN)/python -m pytest -m 'slow or hypothesis' --hypothesis-profile long --timeout 900

lint: $(READY) layers ## ruff, codespell and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

layers: $(READY) ## who may import whom (the contracts in pyproject.toml)
	$(BIN)/lint-imports

types: $(READY) ## mypy --strict
	$(BIN)/mypy

cov: $(READY) ## the quick suite under coverage
	$(BIN)/coverage run -m pytest -m 'not slow' -q
	$(BIN)/coverage report --skip-covered

bench: $(READY) ## all cases against all peers; needs wrk and h2load (Debian: apt-get install wrk nghttp2-client)
	$(BIN)/python -m bench

conformance: $(READY) ## the Autobahn test-suite, on asyncio, uvloop and trio; needs a Python 2.7
	$(BIN)/python -m conformance

# The toolkit in asgiref's place; each on this Python and on the newest that is found.
test-asgiref: ## asgiref's own tests over the toolkit
test-django: ## Django's own tests over the toolkit, on 5.2 and the newest series
test-channels: ## Channels' own tests over the toolkit
test-daphne: ## Daphne's own tests over the toolkit
test-toolkit: ## these four
test-asgiref test-django test-channels test-daphne test-toolkit: test-%: $(READY)
	$(BIN)/python -m conformance $*

bench-quick: $(READY) ## two short rounds against uvicorn alone
	$(BIN)/python -m bench --rounds 2 --seconds 3 --peers uvicorn

clean: ## remove what the targets above made
	rm -rf $(VENV) $(VENV)-newest $(VENV)-free .bench .conformance .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
