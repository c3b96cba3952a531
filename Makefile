# make run [DATA=folder] [PRESET=paper] [OUTPUT=folder]: the whole pipeline
# make test: environment and all tests
# make site: environment, then the executed course as pages, in build/site/index.html
PYTHON ?= python3
VENV ?= .venv
PRESET ?= laptop
TESTS ?=
BUILD ?= build
# Else, as it is set in many containers, every process would compile all that it imports anew:
# with TensorFlow three times as long as an import takes, and the tests begin a hundred processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint site

run: $(VENV)/.run
	$(VENV)/bin/python -m cyclegan_tf run --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(if $(OUTPUT),--output "$(OUTPUT)")

test: $(VENV)/.ready
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

# The links of README and notebooks hold where they lie as they do here.
site: $(VENV)/.ready
	rm -rf $(BUILD) && mkdir -p $(BUILD)/source/outputs
	cp -R site/. README.md LICENSE Dockerfile cyclegan_tf notebooks $(BUILD)/source
	cp -R outputs/gallery $(BUILD)/source/outputs
	cp outputs/gallery/course/*.ipynb $(BUILD)/source/notebooks
	$(VENV)/bin/python -m sphinx -qW --keep-going $(BUILD)/source $(BUILD)/site -d $(BUILD)/parsed

# A run needs no more than what trains. Python compiles what is used when it is used first; pip would
# spend a minute on compiling all that is installed.
$(VENV)/.run: EXTRAS = train
$(VENV)/.ready: EXTRAS = train,test,site
$(VENV)/.run $(VENV)/.ready: requirements.txt tests/requirements.txt site/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --editable '.[$(EXTRAS)]'
	touch $@
