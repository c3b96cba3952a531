# make run [DATA=folder] [PRESET=paper] [OUTPUT=folder]: the whole pipeline
# make test: environment and all tests
PYTHON ?= python3
VENV ?= .venv
PRESET ?= laptop
TESTS ?=

.PHONY: run test lint

run: $(VENV)/.ready
	$(VENV)/bin/python -m cyclegan_tf run --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(if $(OUTPUT),--output "$(OUTPUT)")

test: $(VENV)/.ready
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

$(VENV)/.ready: requirements.txt tests/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[train,test]'
	touch $@
