# make demo | test | test-slow | test-long | lint | docs | benchmark: each sets up .venv first, with every backend and test tool.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
# A process for each core, one thread in each; a file's tests stay together and share what they made.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-slow test-long lint format docs benchmark clean

demo: $(STAMP)
	$(BIN)/edgekd compress --target x86 --quick --out runs/demo

test: $(STAMP)
	$(TESTS) -m "not slow and not long"

test-slow: $(STAMP)
	$(TESTS) -m "slow and not long"

test-long: $(STAMP)
	$(TESTS) -m long

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/zensical build --strict --clean
	@echo "The site is in build/site."

benchmark: $(STAMP)
	for script in training/against_bare_loop pipeline/second_run quantization/against_peers \
		tvm/against_onnxruntime fashion_mnist/three_seeds; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done

$(STAMP): constraints.txt pyproject.toml
	@echo "Setting up .venv with every backend (about 4 GB, a few minutes the first time) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	@touch $@

clean:
	rm -rf .venv runs build dist
