# `make run` builds the default reports, `make supplement` the archive that accompanies a paper,
# `make test` passes the checks and tests; each sets up what it needs first, in a virtual
# environment of its own.

PYTHON ?= python3
CORES ?= all
BIN := .venv/bin

.PHONY: run supplement study manual readme test check benchmark clean

run: .venv/run.stamp
	$(BIN)/snakemake --cores $(CORES)

supplement: .venv/run.stamp
	$(BIN)/snakemake --cores $(CORES) reports/supplement.zip

# A folder of its own for a study: make study NAME=../my-study
study: .venv/run.stamp
	$(BIN)/python workflow/scripts/make_study.py '$(NAME)'

# What derives from the configuration's classes: the schema, and the manual's tables.
manual: .venv/run.stamp
	$(BIN)/python workflow/scripts/write_manual.py

# The README's figures, from the run of every kind of site and then from the default run.
readme: .venv/run.stamp
	$(BIN)/snakemake --cores $(CORES) --configfile config/components.yaml
	cp reports/figures/regions/overlay_vision.block_output_ball_green.png resources/readme/regions.png
	$(BIN)/snakemake --cores $(CORES)
	cp reports/figures/patching/answers_encoder.block_input_animal_shirt.png resources/readme/patching.png

test: check
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy workflow/scripts benchmarks tests resources
	PYTHONPATH=workflow/scripts $(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/snakemake --lint

benchmark: .venv/run.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/sites.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache

.venv/run.stamp: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
