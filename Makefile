# One command for each job; `make help` lists them. Each build flavour lives in
# a virtual environment of its own, so none shadows another.

PYTHON ?= python3
VENV ?= .venv
# Tests to run, as pytest's arguments: make dev T="tests/zmq -k monitor"
T ?= tests
# What needs the packages of the extra `integration`.
INTEGRATION = tests/integration tests/compat/apps/test_jupyter.py tests/compat/pyzmq
# What the native engine may serve in place of libzmq.
NATIVE = tests/zmq/test_transport.py tests/zmq/test_stream.py \
    tests/zmq/test_security.py tests/rpc/test_rpc.py tests/rpc/test_calls.py \
    tests/rpc/test_pipeline.py tests/rpc/test_pubsub.py tests/rpc/test_limits.py
# Interpreters to make wheels for: those that are here, unless it names some.
WHEELS ?=
RESULTS = benchmarks/results

# How long each fuzzer runs.
SECONDS ?= 60

# FULL=1: the original benchmark's size.
SIZE = $(if $(FULL),--count 5000 --tries 100)

# An extension with AddressSanitizer needs its runtime loaded first, and
# libstdc++ beside it, as libzmq throws. CPython's own blocks at exit are no leaks.
ASAN_ENV = PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so) $$($${CC:-gcc} -print-file-name=libstdc++.so)"

# As that; any free-threaded interpreter will do. What is not instrumented is not watched.
TSAN_ENV = PYTHON_GIL=0 LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libtsan.so)" \
    TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp ignore_noninstrumented_modules=1"
THREADED = tests/hardening/test_free_threading.py tests/hardening/test_threads.py \
    tests/hardening/test_foreign_collector.py \
    tests/hardening/test_loops_side_by_side.py \
    tests/loop/test_workers.py

.DEFAULT_GOAL := help
.PHONY: help bench test dev native integration asan tsan leaks fuzz lint docs wheels \
    pythons clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter, T=tests/zmq the tests."

bench: ## set everything up and run the main benchmark (FULL=1: 5000 x 100)
	@.ci/venv $(VENV)-release release bench,test $(PYTHON)
	@mkdir -p $(RESULTS)
	$(VENV)-release/bin/python benchmarks/simple.py $(SIZE) \
	    --json $(RESULTS)/simple.json --save-plot $(RESULTS)/simple.png

test: ## set everything up and run the tests on the release build
	@.ci/venv $(VENV)-release release bench,test $(PYTHON)
	$(VENV)-release/bin/pytest $(T)

dev: ## the tests on the debug build: asserts and live-object counters
	@.ci/venv $(VENV)-debug debug test $(PYTHON)
	$(VENV)-debug/bin/pytest $(T)

native: ## transports, streams and rpc over the native engine, on the release build
	@.ci/venv $(VENV)-release release bench,test $(PYTHON)
	AIOZMQ_SPEEDUPS_ENGINE=native $(VENV)-release/bin/pytest -m "not slow" $(NATIVE)

integration: ## real programs on this loop, PostgreSQL and Redis among them
	@.ci/venv $(VENV)-integration release integration,test $(PYTHON)
	$(VENV)-integration/bin/pytest -p no:asyncio $(if $(filter tests,$(T)),$(INTEGRATION),$(T))

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@.ci/venv $(VENV)-asan asan test $(PYTHON)
	$(ASAN_ENV) $(VENV)-asan/bin/pytest -p no:cacheprovider -m "not slow" $(T)

tsan: ## tests of threads under ThreadSanitizer (PYTHON=python3.14t)
	@.ci/venv $(VENV)-tsan tsan test $(PYTHON)
	$(TSAN_ENV) $(VENV)-tsan/bin/pytest -p no:cacheprovider -s -k "not asyncio" \
	    $(if $(filter tests,$(T)),$(THREADED),$(T))

leaks: ## the leak tests on the debug build: memory flat over a million operations
	@.ci/venv $(VENV)-debug debug test $(PYTHON)
	$(VENV)-debug/bin/pytest -m leaks $(T)

fuzz: ## the fuzzers of tests/c, each for SECONDS=60
	$(PYTHON) tests/c/fuzz.py $(SECONDS)

lint: ## ruff, mypy, clang-format, stubtest and the checks in tests/lint
	@.ci/venv $(VENV)-lint debug test,lint $(PYTHON)
	$(VENV)-lint/bin/ruff check
	$(VENV)-lint/bin/ruff format --check
	$(VENV)-lint/bin/mypy
	$(VENV)-lint/bin/pytest -q tests/lint

docs: ## build the documentation with sphinx
	@.ci/venv $(VENV)-docs release docs $(PYTHON)
	$(VENV)-docs/bin/sphinx-build -W -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheels: ## an sdist and wheels in dist/, those for this machine tested there
	.ci/wheels dist $(WHEELS)
	.ci/test-wheels dist $(filter-out tests,$(T))

pythons: ## the tests on Python 3.14 and 3.15 in a tree of Debian sid (as root)
	T='$(T)' tools/new-pythons test

clean: ## remove what the commands above have made
	rm -rf build dist *.egg-info $(VENV)-release $(VENV)-debug $(VENV)-asan $(VENV)-tsan \
	    $(VENV)-integration $(VENV)-lint $(VENV)-docs docs/_build .mypy_cache .ruff_cache .pytest_cache
	rm -f aiozmq_speedups/_core*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
