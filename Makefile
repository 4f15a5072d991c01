# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: install demo test check docs clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

# Python packages in .venv, nothing else.
install: .venv/.installed

# Trajectories, a freshly fitted sampler, and a table of decoders, on the tiny world.
demo: .venv/.installed
	rm -rf runs/demo
	$(BIN)/dlmjoint generate --config configs/generate/demo.yaml
	$(BIN)/dlmjoint fit --config configs/fit/demo.yaml
	$(BIN)/dlmjoint eval --config configs/eval/demo.yaml

# As many processes as cores, each with one thread: threads that wait for each other's core spin. Each
# process takes a stretch of the files, so that what a file prepares is mostly prepared once.
test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, in build/site; a warning is an error. (Material announces its successor in every build.)
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'Open build/site/index.html; for its search: $(BIN)/python -m http.server --directory build/site'

clean:
	rm -rf .venv runs
