# make train: set up everything that is missing, fine-tune the small default model on the bundled data, show the result.
# make test:  the same set-up and the development tools, then every check.
PYTHON ?= python3
MODEL := transformers/bert/all-MiniLM-L6-v2
RUN := .venv/bin/python
TORCH := $(shell sed -n 's/^torch==//p' requirements.txt)
CPU_TORCH := 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
PIP := $(RUN) -m pip install --require-hashes --disable-pip-version-check

.PHONY: train test check docs lock clean

train: .venv/installed $(MODEL)/model.safetensors
	$(RUN) bertFineTuningWithConnectionData.py --model-dir $(MODEL) --output-dir output/make-train --overwrite --epochs 8

test: check $(MODEL)/model.safetensors
	$(RUN) -m pytest -n auto --dist worksteal

check: .venv/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	for system in linux darwin win32; do $(RUN) -m mypy --platform $$system || exit 1; done

# The documents as a site in output/site, built without a request to anywhere; a link that leads nowhere fails.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

clean:
	rm -rf .venv output/make-train output/cache output/site .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is as new as the last installation from its files. Every file that pip installs has a hash in requirements.lock.
# PyTorch comes first, alone: of its builds pip then takes the one that this machine is set up for (a CPU build, where there is
# one), while with hashes to compare it would always take the index's own, which has gigabytes of CUDA libraries on Linux.
.venv/installed: requirements.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(PIP) --quiet -r requirements-pip.txt
	$(RUN) -m pip download --no-deps --dest .venv/wheels torch==$(TORCH)
	$(PIP) --no-deps --no-index --find-links .venv/wheels -c requirements.lock torch==$(TORCH)
	rm -r .venv/wheels
	$(PIP) -r requirements.txt -c requirements.lock
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PIP) -r requirements-dev.txt -c requirements.lock
	touch $@

.venv/installed-docs: requirements-docs.txt .venv/installed
	$(PIP) -r requirements-docs.txt -c requirements.lock
	touch $@

# After a change of a requirements file: makes requirements.lock again, with the hash of PyTorch's own CPU build beside the index's.
lock: .venv/installed
	$(RUN) -m pip install uv==0.13.9
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		requirements-dev.txt requirements-search.txt requirements-docs.txt requirements-export.txt requirements-openvino.txt | awk '{ print } /^torch==/ { print "    --hash=sha256:$(CPU_TORCH) \\" }' > requirements.lock

$(MODEL)/model.safetensors: | .venv/installed
	$(RUN) -m tools.download all-MiniLM-L6-v2
