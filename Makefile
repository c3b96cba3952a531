# make run [DATA=folder] [PRESET=paper] [OUTPUT=folder]: the whole pipeline
# make test: environment and all tests
# make site: environment, then the executed course as pages, in $(SITE)/index.html
PYTHON ?= python3
VENV ?= .venv
PRESET ?= laptop
TESTS ?=
SITE ?= build/site

.PHONY: run test lint site

run: $(VENV)/.ready
	$(VENV)/bin/python -m cyclegan_tf run --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(if $(OUTPUT),--output "$(OUTPUT)")

test: $(VENV)/.ready
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

# The links of README and notebooks hold where they lie as they do here.
site: $(VENV)/.ready
	rm -rf $(SITE) && mkdir -p $(SITE)/.source/outputs
	cp -R site/. README.md LICENSE Dockerfile cyclegan_tf notebooks $(SITE)/.source
	cp -R outputs/gallery $(SITE)/.source/outputs
	cp outputs/gallery/course/*.ipynb $(SITE)/.source/notebooks
	$(VENV)/bin/python -m sphinx -qW --keep-going -d $(SITE)/.pages $(SITE)/.source $(SITE)

$(VENV)/.ready: requirements.txt tests/requirements.txt site/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[train,test,site]'
	touch $@
