# make all    set up, then the whole chain on embedded scenes
# make test   set up, then the tests that take seconds; make test-all runs the slow ones
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stage that is stopped says what goes on: not its own command, but what was typed.
RUN := SPIKEDEBLUR_CALLER="make $(or $(MAKECMDGOALS),all)" $(BIN)/spikedeblur
# setuptools warns of folders named as the package, of which there are none here.
EDITABLE := PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet -c constraints.txt -e
INSTALLED := $(VENV)/.installed
FOR_TESTS := $(VENV)/.installed-for-tests
# For example `make all TORCH=cpu`: a build of torch without CUDA, where PyTorch's index can be reached.
TORCH ?=

DATA := data/quickstart
STORE := data/quickstart.zarr
OUT := outputs/quickstart
LOG := outputs/logs/align_x4k1000fps.txt
CONFIG := configs/deblur/quickstart.yaml

.PHONY: all install browser test test-all test-minimal lint docs torture mutation bench bench-io bench-memory bench-hours bench-device bench-model bench-quality bench-apart bench-path bench-adaptation bench-ablation bench-in-time bench-rolling model picture compare clean
.DELETE_ON_ERROR:

all: $(OUT)/.done
	@cat $(OUT)/results.txt
	@echo
	@echo "All is up to date. Look at:"
	@echo "  $(OUT)/report.html        all of it on one page, for a browser"
	@echo "  $(OUT)/before_after.png   blur, SDM, path, model, sharp"
	@echo "  $(OUT)/restored/          frames of a test clip, restored"
	@echo "  $(OUT)/evaluation.json    the figures above, by sequence"
	@echo "To go on, with data of your own (README.md):"
	@echo "  source $(VENV)/bin/activate         once in each terminal, so that \`spikedeblur\` is found"
	@echo "  spikedeblur --help"

install: $(FOR_TESTS)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "needs Python 3.11 or later with venv: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV)/, which takes a few minutes: about 3.2 GB to download and 6 GB on disk, nearly"
	@echo "all of it torch for CUDA. TORCH=cpu takes a tenth of that, where PyTorch's own index can be reached."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@if [ -n "$(TORCH)" ]; then \
		$(BIN)/python -m pip install --quiet -c constraints.txt uv && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH) -c constraints.txt torch torchvision || \
		echo "torch's build $(TORCH) can't be had here: the default is installed" >&2; fi
	$(EDITABLE) .
	@touch $@

$(FOR_TESTS): $(INSTALLED)
	@echo "Installing what tests, linters and documentation need: about 1.9 GB on disk"
	$(EDITABLE) '.[dev]'
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/spikedeblur
	@touch $@

# Each stage keeps what is there from the same inputs, so an interrupted `make all` goes on.
$(OUT)/.done: $(CONFIG) | $(INSTALLED)
	@echo "[1/7] simulate"
	$(RUN) simulate $(DATA) --scenes 240 --split train --size 128x128
	$(RUN) simulate $(DATA) --scenes 8 --split val --size 128x128
	$(RUN) simulate $(DATA) --scenes 8 --split test --size 192x192
	$(RUN) simulate $(DATA) --scenes 1 --split show --size 192x240
	@echo "[2/7] align"
	$(RUN) align $(DATA) --layout x4k1000fps --log $(LOG)
	@echo "[3/7] voxelize"
	$(RUN) voxelize $(LOG:.txt=.json) $(STORE)
	@echo "[4/7] train: four to ten minutes"
	$(RUN) train --config $(CONFIG) --run $(OUT) --resume
	@echo "[5/7] evaluate"
	COLUMNS=80 $(RUN) evaluate $(STORE) --run $(OUT) --split test --json $(OUT)/evaluation.json \
		--picture $(OUT)/before_after.png | tee $(OUT)/results.txt
	@echo "[6/7] restore"
	$(RUN) restore --run $(OUT) --blur $(DATA)/test_blurry_33/scenes/00000 \
		--spikes $(DATA)/test_spike_2xds/scenes/00000/spike.dat --log $(LOG) \
		--out $(OUT)/restored
	@echo "[7/7] report"
	$(RUN) report $(OUT)
	@touch $@

# mypy finds the checkout under the package's name by a link that `install` makes.
lint: $(FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/src $(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; else echo "no hadolint here: Dockerfile not looked at"; fi

# Tests of two files run side by side, each in one thread: OpenMP threads that share a core spin.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
test: $(FOR_TESTS)
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=85

# Tests of pages need a Chromium; where it can't be installed they are skipped and say so.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
		  apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "no Chromium: the tests of pages will be skipped" >&2

test-all: $(FOR_TESTS) browser
	$(PYTEST) --no-loadscope-reorder -m slow

# The lowest versions that pyproject.toml allows; downloads a few gigabytes, then takes some minutes.
LOWEST := build/minimal/bin/python
SMOKE := tests/cli tests/configs tests/model tests/third_party tests/pipeline/spikes \
	tests/pipeline/sequences/test_stored.py tests/pipeline/sequences/test_find_recording.py \
	tests/pipeline/voxelize/test_job.py tests/pipeline/voxelize/test_scheduler.py \
	tests/pipeline/train/test_job.py tests/pipeline/train/test_resuming.py tests/pipeline/train/test_best.py \
	tests/pipeline/train/test_failing_steps.py tests/pipeline/train/run/test_folder.py \
	tests/pipeline/report/test_report.py tests/pipeline/report/test_refusals.py \
	tests/pipeline/restore tests/pipeline/evaluate/test_job.py tests/pipeline/trained/test_model_file.py
test-minimal: $(FOR_TESTS)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/minimal
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -e '.[png16]'
	$(BIN)/uv pip install --quiet --python $(LOWEST) pytest pytest-timeout hypothesis
	OMP_NUM_THREADS=1 $(LOWEST) -m pytest -m "not slow" $(SMOKE)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -e '.[onnx]'
	OMP_NUM_THREADS=1 $(LOWEST) -m pytest tests/pipeline/trained/test_program.py

docs: $(FOR_TESTS)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo "build/site/index.html"

# Kills at random moments, full disks, damaged files by the thousand, a long soak: half an hour.
torture: $(FOR_TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture

# Changes the core in small ways and counts which of them the tests notice: under an hour.
mutation: $(FOR_TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation --jobs 2

bench: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks

# Which disk cache and network keep steps of STEP seconds fed from the store STORE in a bucket.
STEP := 1
bench-io: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.feeding $(STORE) --step $(STEP)

bench-memory: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.memory

# What ten kills of a voxelize of 2 GB cost, and the memory of a part of 64 GB: ten minutes.
bench-hours: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.hours

# On a GPU, under ten minutes: the network, light, path, the loader. QUICK=--quick tries it on a CPU.
bench-device: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.device $(QUICK)

bench-model: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.model

bench-quality: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.quality

# Scenes in which things move apart; constants are chosen on --set tuning, and judged on the other.
bench-apart: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.apart --model small

# What path is worth without a model, by several cameras; whether it makes anything worse; its cost.
bench-path: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.quality --without-model
	$(BIN)/python -m tests.benchmarks.apart --camera threshold4,noise,dead,half,late,quarter
	$(BIN)/python -m tests.benchmarks.calm
	$(BIN)/python -m tests.benchmarks.sensor
	$(BIN)/python -m tests.benchmarks.sizes
	$(BIN)/python -m tests.benchmarks.recordings
	$(BIN)/python -m tests.benchmarks.clipped
	$(BIN)/python -m tests.benchmarks.instants
	$(BIN)/python -m tests.benchmarks.path_cost
	$(BIN)/python -m tests.benchmarks.evaluating

# Do spikes and frames belong together, and is a shutter rolling? How often the answer is right.
bench-in-time: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.in_time

bench-rolling: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.rolling

bench-adaptation: $(OUT)/.done
	$(BIN)/python -m tests.benchmarks.adaptation $(OUT)

bench-ablation: $(FOR_TESTS)
	$(BIN)/python -m tests.benchmarks.ablation

# The model in the package, from nothing: about 40 minutes on one core.
model: $(FOR_TESTS)
	$(RUN) simulate data/small --scenes 640 --fastest 4 --split train --size 128x128
	$(RUN) simulate data/small --scenes 8 --split val --size 128x128
	$(RUN) align data/small --layout x4k1000fps --log outputs/logs/small.txt
	$(RUN) voxelize outputs/logs/small.json data/small.zarr
	$(RUN) train --config configs/deblur/small.yaml --run outputs/small --resume
	$(RUN) export outputs/small model/trained/small.safetensors --clip-len 1 --overwrite

# The picture on the first page of README.md and of the documentation: the scene for the eye, by `small`.
SHOWN := build/picture
picture: $(FOR_TESTS)
	rm -rf $(SHOWN)
	$(RUN) simulate $(SHOWN)/data --scenes 1 --split show --size 192x240
	$(RUN) align $(SHOWN)/data --layout x4k1000fps --log $(SHOWN)/align.txt
	$(RUN) voxelize $(SHOWN)/align.json $(SHOWN)/data.zarr
	$(RUN) evaluate $(SHOWN)/data.zarr --model small --split show --picture $(SHOWN)/before_after.png
	$(BIN)/python docs/site/picture.py $(SHOWN)/before_after.png docs/before_after.webp

# Whether two commits make the same: OLD=<revision>; NEW is the working tree by default.
# ONLY=convert takes the rows with that in their names.
compare: $(FOR_TESTS)
	$(BIN)/python -m tests.compare_commits $(OLD) $(NEW) $(if $(ONLY),--only "$(ONLY)")

clean:
	rm -rf data outputs
