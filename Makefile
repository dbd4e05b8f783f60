# The first command that needs it sets everything up, with the versions of constraints.txt; Python 3.11
# or later is all that must be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A second environment, of the lowest supported versions, which have wheels for the lowest Python.
LOWEST := .venv-lowest
LOWEST_PYTHON ?= python3.11

# Parity with torch, blocks, the planner's arithmetic, files written and read, the configuration,
# whole jobs that are interrupted and resumed: well under a minute on two cores. They need pytest and
# hypothesis beside what the package needs.
FAST := tests/core/test_parity.py tests/core/test_blocks.py tests/jobs/planning/test_cost.py \
  tests/jobs/execution/test_chunk_size.py tests/jobs/execution/test_resume.py \
  tests/jobs/configuration/test_checks.py tests/outputs/test_round_trip.py \
  tests/outputs/writing/test_writer.py tests/outputs/reading/test_result.py

.PHONY: run test test-fast test-lowest test-pythons test-ecosystem test-slurm check format docs journeys dist torture \
  big bench bench-full bench-memory bench-peers-memory \
  bench-steps bench-overlap bench-batches bench-planner bench-processes bench-verify bench-reliability bench-workers \
  bench-sparse bench-libraries clean

run: $(VENV)/.installed
	$(BIN)/python -m jobs.run

# One process per core, each with one thread: torch's threads would only wait for one another. What
# needs the machine for itself comes afterwards: the journeys, and SLURM where it is installed.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
	OMP_NUM_THREADS=1 AUTODIFF_JOBS_JOURNEYS=1 AUTODIFF_JOBS_SLURM=1 \
	  $(BIN)/python -m pytest -n auto --dist loadgroup tests/test_journeys.py \
	  tests/test_distribution.py tests/slurm

test-fast: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(FAST)

# The fast tests with the lowest versions that pyproject.toml allows, torch excepted.
test-lowest:
	@if $(LOWEST_PYTHON) -c '' 2>/dev/null; then \
	  $(MAKE) --no-print-directory $(LOWEST)/.installed && \
	  OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(FAST); \
	else echo "test-lowest: skipped, $(LOWEST_PYTHON) is not installed"; fi

# The fast tests with every other supported Python that is installed: see the script.
test-pythons: $(VENV)/.installed-test
	.ci/other-pythons $(FAST)

# One job with each of a dozen public libraries: see the script.
test-ecosystem: $(VENV)/.installed-test
	.ci/ecosystem

check: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python docs/check_prose.py
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The tests on a real SLURM, as root, with Debian's slurmctld, slurmd, slurmdbd, slurm-client, munge and
# mariadb-server installed; minutes.
test-slurm: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 AUTODIFF_JOBS_SLURM=1 $(BIN)/python -m pytest tests/slurm

# The site, into build/site; warnings are errors.
docs: $(VENV)/.installed-test
	$(BIN)/python docs/generate_options.py
	$(BIN)/python -m mkdocs build --strict

# The first steps of a new user, from a clean clone in a fresh environment; minutes.
journeys: $(VENV)/.installed-test
	AUTODIFF_JOBS_JOURNEYS=1 $(BIN)/python -m pytest tests/test_journeys.py tests/test_distribution.py

# The wheel and the source distribution, into dist; the recipes in containers/ take the wheel.
dist: $(VENV)/.installed-test
	$(BIN)/python -m hatchling build -d dist

# 200 kills of the real command, resumed each time (the suite makes ten), 1,000 faults of the disk at
# single system calls (the suite makes ten), and 2,000 hostile files read by everything that reads
# files (the suite makes twelve); more than an hour.
torture: $(VENV)/.installed-test
	AUTODIFF_JOBS_KILLS=200 $(BIN)/python -m pytest tests/jobs/test_torture.py
	$(BIN)/python tests/faults/sweep.py --faults 1000 --seed 0
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/hostile_reading.py --files 2000 --seed 0

# Speed beside torch and JAX: about forty minutes, and hours at full size.
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/speed.py --json speed.json --plot speed.png
	$(BIN)/python benchmarks/speed.py --set users --json speed-users.json
	$(BIN)/python benchmarks/steps.py

bench-full: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/speed.py --full --seconds 30 --screen 3 --json speed-full.json --plot speed-full.png

# Peak memory beside torch.func and JAX at equal chunk sizes; minutes.
bench-peers-memory: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/memory_of_peers.py

bench-memory: $(VENV)/.installed-test
	$(BIN)/python benchmarks/memory.py

# Matrices larger than memory, within small budgets; the last has 32 GiB, for which the disk needs room.
big: $(VENV)/.installed-test
	$(BIN)/python benchmarks/within_memory.py --directory .

bench-planner: $(VENV)/.installed-test
	$(BIN)/python benchmarks/planner.py

# Whole processes beside scripts by hand; half an hour.
bench-processes: $(VENV)/.installed-test
	$(BIN)/python benchmarks/processes.py

bench-verify: $(VENV)/.installed-test
	$(BIN)/python benchmarks/verify.py --gigabytes 10

# What the comparison with differences costs a job; minutes.
bench-verification: $(VENV)/.installed-test
	$(BIN)/python benchmarks/verification_cost.py

# PEER is the directory of a checkout of an earlier commit.
bench-reliability: $(VENV)/.installed-test
	$(BIN)/python benchmarks/reliability.py $(PEER)

# The script skips libraries that are not installed; make test-ecosystem installs most of them.
bench-libraries: $(VENV)/.installed-test
	.ci/ecosystem --no-tests
	PYTHONPATH=$(CURDIR) .venv-ecosystem/bin/python benchmarks/libraries.py

bench-workers: $(VENV)/.installed-test
	$(BIN)/python benchmarks/workers.py

bench-sparse: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/sparse.py

# Fails if a step of a long program costs more than 15 microseconds beside its operators.
bench-steps: $(VENV)/.installed-test
	$(BIN)/python benchmarks/steps.py

bench-overlap: $(VENV)/.installed-test
	$(BIN)/python benchmarks/overlap.py

bench-batches: $(VENV)/.installed-test
	$(BIN)/python benchmarks/batches.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; choose another one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-lowest.txt -e . pytest hypothesis
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(INSTALL) -e '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .venv-python* .venv-ecosystem build dist .pytest_cache .ruff_cache .hypothesis
