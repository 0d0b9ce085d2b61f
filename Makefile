# The commands of the project; continuous integration calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FUZZ_SECONDS ?= 300
# Test files run in so many processes. A file's tests share clusters and run in order in one
# process; files are taken in the order of their names, so that short ones come last.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The tests that docs/faults.md names.
FAULTS := tests/chaos tests/networks tests/pipeline/worker/test_share_checks.py \
  tests/pipeline/worker/test_executable_plugin.py \
  tests/pipeline/worker/test_checked_combinations.py \
  tests/coding/test_combination_checks.py tests/pipeline/worker/test_layer_checks.py tests/pipeline/runtime/test_retries.py \
  tests/pipeline/runtime/test_large_images.py tests/pipeline/runtime/test_full_disk.py \
  tests/pipeline/runtime/test_scheduler_restart.py tests/pipeline/runtime/test_worker_watch.py \
  tests/pipeline/runtime/test_failures.py tests/pipeline/runtime/test_side_by_side.py \
  tests/pipeline/runtime/test_cluster.py \
  tests/pipeline/monitoring/test_output_status.py tests/pipeline/monitoring/test_watched_runs.py \
  tests/pipeline/runtime/test_job.py tests/pipeline/anyk/test_processes.py \
  tests/pipeline/anyk/scheduler/test_anyk_plugin.py tests/storage/test_verification.py \
  tests/pipeline/worker/test_hostile_shares.py tests/pipeline/runtime/test_damaged_fields.py

# The long tests that show what no short one does, in about fifteen minutes.
LONG_IN_CI := tests/chaos/test_memory.py tests/chaos/test_surroundings.py \
  tests/chaos/test_sigkill.py::test_a_few_kills \
  'tests/chaos/test_sigkill.py::test_thirty_kills[11-standby]' tests/compat \
  'tests/chaos/test_runs.py::test_processes[0]' tests/pipeline/worker/test_hostile_shares.py \
  tests/pipeline/worker/test_layer_checks.py tests/pipeline/worker/test_checked_networks.py \
  tests/pipeline/model/test_importer.py tests/pipeline/model/test_image_analysis.py \
  tests/pipeline/model/export/test_model_file.py tests/pipeline/cli/test_families.py \
  tests/pipeline/model/test_head_analysis.py tests/pipeline/runtime/test_predictions.py \
  tests/pipeline/runtime/test_infer_weights.py \
  tests/pipeline/runtime/test_several_outputs.py \
  tests/pipeline/halo/test_network_rows.py \
  tests/pipeline/anyk/test_processes.py tests/pipeline/demo/test_show.py \
  tests/pipeline/graph/test_networks.py tests/pipeline/runtime/test_failures.py \
  tests/pipeline/runtime/test_job.py tests/pipeline/runtime/test_large_images.py \
  tests/pipeline/runtime/test_object_store.py tests/pipeline/runtime/test_reading.py \
  tests/pipeline/runtime/tiles/test_tiled_runs.py \
  tests/pipeline/worker/test_memory.py tests/pipeline/worker/test_executable_plugin.py \
  tests/pipeline/anyk/scheduler/test_anyk_plugin.py tests/pipeline/cli/test_advice.py \
  tests/pipeline/model/test_budget.py tests/pipeline/monitoring/test_output_status.py \
  tests/pipeline/monitoring/dashboard tests/pipeline/runtime/test_cluster.py \
  tests/pipeline/runtime/test_fork_server.py tests/pipeline/runtime/test_full_disk.py \
  tests/pipeline/runtime/test_leaks.py::test_a_few_calls_leave_nothing_behind \
  tests/pipeline/runtime/test_main_guard.py tests/pipeline/runtime/test_side_by_side.py \
  tests/pipeline/runtime/test_worker_watch.py tests/pipeline/runtime/test_tls.py \
  tests/pipeline/runtime/test_scheduler_restart.py::test_a_scheduler_that_stays_away_ends_the_run_and_the_next_one_goes_on \
  'tests/networks/test_other_links.py::test_a_cut_that_is_mended[client-10]' \
  'tests/networks/test_worker_links.py::test_a_link_that_stays_bad[cut]' \
  'tests/networks/test_worker_links.py::test_a_link_that_stays_bad[loss]' \
  'tests/networks/test_worker_links.py::test_a_link_that_comes_back[flap]' \
  'tests/networks/test_worker_links.py::test_what_somebody_else_runs_there_runs_once[cut-5]' \
  'tests/chaos/test_suspension.py::test_a_process_group_that_sleeps[images]' \
  'tests/chaos/test_suspension.py::test_a_laptop_that_sleeps_with_a_cluster_of_its_own[client scheduler workers-rows]' \
  'tests/chaos/test_bystander.py::test_others_on_the_cluster_are_not_harmed[0]' \
  tests/pipeline/runtime/test_photos.py tests/documentation/test_deploy.py

.DEFAULT_GOAL := help
.PHONY: help env demo test test-ci test-long chaos fuzz licences sbom lint format docs bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(READY) ## make the environment in .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"fcdcc needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: run make PYTHON=/path/to/newer/python")'
	@echo 'Making the environment in $(VENV), once. It takes minutes: pip downloads about 150 packages, 0.5 GB with the CPU build of PyTorch, more with CUDA.'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## classify real images with two of six workers stopped, and once more on plain Dask
	$(BIN)/fcdcc demo

test: $(READY) ## run the test suite
	$(PYTEST)

test-ci: $(READY) ## the long tests that continuous integration runs after `make test`
	$(PYTEST) -m long $(LONG_IN_CI)

test-long: $(READY) ## run the long tests, too
	$(PYTEST) -m 'long or not long'

chaos: $(READY) ## every fault of docs/faults.md, and 200 seeded runs with faults at random moments
	$(PYTEST) $(FAULTS) -m 'long or not long'

fuzz: $(READY) ## all fuzzed entry points, FUZZ_SECONDS each
	FCDCC_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/fuzz -m 'long or not long'

licences: $(READY) ## the packages that are needed, with their licences
	@$(BIN)/python tools/inventory.py licences

sbom: $(READY) ## a software bill of materials, CycloneDX, in sbom.json
	@$(BIN)/python tools/inventory.py sbom > sbom.json

lint: $(READY) ## style, types and the rules between the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

bench: $(READY) ## the benchmarks that take minutes; the others are named in docs/
	$(BIN)/python benchmarks/healthy.py
	$(BIN)/python benchmarks/planned.py
	$(BIN)/python benchmarks/conditions.py
	$(BIN)/python benchmarks/cost.py

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist docs/_build
