# make train: set up everything that is missing, fine-tune the small default model on the bundled data, show the result.
# make test:  the same set-up and the development tools, then every check.
PYTHON ?= python3
MODEL := transformers/bert/all-MiniLM-L6-v2
RUN := .venv/bin/python

.PHONY: train test check clean

train: .venv/installed $(MODEL)/model.safetensors
	$(RUN) bertFineTuningWithConnectionData.py --model-dir $(MODEL) --output-dir output/make-train --overwrite --epochs 8

test: check $(MODEL)/model.safetensors
	$(RUN) -m pytest -n auto --dist worksteal

check: .venv/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	for system in linux darwin win32; do $(RUN) -m mypy --platform $$system || exit 1; done

clean:
	rm -rf .venv output/make-train output/cache .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is as new as the last installation from its file.
.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(MODEL)/model.safetensors: | .venv/installed
	$(RUN) -m tools.download all-MiniLM-L6-v2
