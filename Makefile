# Targets for users: venv, demo, test. For developers: lint, types, proto, docs, test-system, test-lmms-eval, hostile, faults,
# soak, audit, clean.
# Variables: SEED (the demo's album), WORKERS (processes that share the tests: one for each core, at most 4), PYTHON (the Python of
# the new .venv), TORCH_INDEX_URL (see scripts/make_venv.sh).

BIN := .venv/bin
STAMP := .venv/.installed
SOURCES := vscan client encoder_service decoder_service embedded_model scripts tests demo bench studies gateway_service page_service
SEED ?= 0
export SEED
# Tests start the services hundreds of times: without its bytecode kept, each start would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= auto

.PHONY: venv demo test test-system test-lmms-eval hostile faults soak lint types proto proto-check docs audit clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@sh scripts/check_needs.sh
	@sh scripts/make_venv.sh

demo: $(STAMP)
	$(BIN)/python -m demo

test: $(STAMP) lint types proto-check
	$(BIN)/python -m pytest -m "not system and not gpu" -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Needs root and the packages that .ci/run installs.
test-system: $(STAMP)
	$(BIN)/python -m pytest -m system -n $(WORKERS) --maxprocesses 2 --dist loadfile --no-loadscope-reorder

# lmms-eval's own command against services of this tree, from an environment of its own, which takes minutes to make.
test-lmms-eval: $(STAMP) .venv-lmms-eval/.installed
	$(BIN)/python -m pytest tests/lmms_eval

.venv-lmms-eval/.installed: pyproject.toml scripts/make_lmms_eval_venv.sh tests/lmms_eval/requirements.txt
	@sh scripts/make_lmms_eval_venv.sh

# Both write the reports that docs/reliability.md is made from. The first takes six minutes (full disks need root), the second
# eleven.
faults: $(STAMP)
	$(BIN)/python -m tests.faults --json bench/results/faults-cpu-2-cores.json

soak: $(STAMP)
	$(BIN)/python -m tests.soak --seconds 600 --json bench/results/soak-cpu-2-cores.json

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy $(SOURCES)

# Writes vscan/v1 anew from proto/, and adds what is new to the snapshot that the contract test compares with.
proto: $(STAMP)
	$(BIN)/python -m scripts.proto generate
	$(BIN)/python -m scripts.proto extend-snapshot

proto-check: $(STAMP)
	$(BIN)/python -m scripts.proto check

# Writes docs/api.md, docs/configuration.md, docs/errors.md, docs/evaluation.md and tables of docs/cache.md, docs/encoder.md,
# docs/reliability.md and README.md anew
# from the protos, the settings, the errors and the kept runs.
docs: $(STAMP)
	$(BIN)/python -m scripts.generate_docs

# Asks a database of advisories about the pinned versions; see the script for which. Not part of `make test`: it needs the network.
audit: $(STAMP)
	@BIN=$(BIN) sh scripts/audit.sh

# Hostile input against live services, one by one and eight at once; minutes.
hostile: $(STAMP)
	$(BIN)/python -m tests.hostile --json bench/results/hostile-cpu-2-cores.json

clean:
	rm -rf .venv .venv-lmms-eval build dist demo_out studies-out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
