# make help lists the commands. Everything is installed into a virtual environment here, and nowhere else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FILE ?=
ENV ?=
ITTYBIT ?=
OPEN ?=
ARGS ?=
ROWS ?=
DOCS ?=
UPLOADS ?= 10000
EVERY ?=
SEED ?= 1
PACE ?= 12
KEY ?= honoured
ifeq ($(filter honoured ignored,$(KEY)),)
  $(error KEY=$(KEY): it is honoured or ignored)
endif
API ?= automations
ifeq ($(filter automations jobs,$(API)),)
  $(error API=$(API): it is automations or jobs)
endif
FUZZ_SECONDS ?= 60
UPGRADE ?=
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make compile" $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help demo serve sql doctor test faults bench fuzz openapi lint compile audit sbom clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/local ## Process one clip with the embedded stack (FILE=path for one of yours; OPEN=1; API=jobs)
	@$(BIN)/python -m local demo --api $(API) $(if $(OPEN),--open) $(if $(FILE),"$(FILE)")

serve: $(VENV)/local ## Keep the embedded stack running (API=jobs; ENV=.env: only the functions; ITTYBIT=local: and ittybit)
	@$(BIN)/python -m local serve --api $(API) $(if $(ENV),--env "$(ENV)") $(if $(ITTYBIT),--ittybit "$(ITTYBIT)")

sql: $(VENV)/local ## psql on the database that make serve runs (SQL='select …')
	@$(BIN)/python -m local sql $${SQL:+"$$SQL"}

doctor: $(VENV)/local ## Check the stack that make serve runs (ARGS=--json)
	@$(BIN)/python -m deploy.doctor --env-file build/serve.env $(ARGS)

test: $(VENV)/installed ## All tests, several files at a time (EVERY=yes: all variations, and PostgreSQL 15 and 18)
	@./deploy.sh stage >/dev/null
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(if $(EVERY),--every)

faults: $(VENV)/local ## The stack under load and faults (UPLOADS=10000 SEED=1 KEY=honoured|ignored API=jobs PACE=12)
	@$(BIN)/python -m local faults --uploads $(UPLOADS) --seed $(SEED) --pace $(PACE) --api $(API) $(if $(filter ignored,$(KEY)),--ignore-idempotency)

bench: $(VENV)/installed ## Measure each step against the same step without this project (ROWS=1,2; DOCS=1 updates docs/performance.md)
	@$(BIN)/python -m bench $(if $(ROWS),--rows $(ROWS)) $(if $(DOCS),--write-docs)

fuzz: $(VENV)/installed ## Run every property test with other inputs, for some time (FUZZ_SECONDS=60)
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

openapi: $(VENV)/installed ## Write docs/openapi.json from the functions' models
	@$(BIN)/python -m deploy.openapi

lint: $(VENV)/installed ## ruff, mypy --strict and shellcheck
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/shellcheck -x deploy.sh deploy/*.sh deploy/runtimes/*.sh .ci/run

compile: $(VENV)/installed ## Pin the packages of requirements*.in, with hashes (UPGRADE=yes: the newest versions)
	@$(BIN)/$(COMPILE) requirements.in --output-file requirements.txt
	@$(BIN)/$(COMPILE) requirements-deploy.in --output-file requirements-deploy.txt
	@$(BIN)/$(COMPILE) requirements-local.in --output-file requirements-local.txt
	@$(BIN)/$(COMPILE) requirements-dev.in --output-file requirements-dev.txt

audit: $(VENV)/installed ## Look for known vulnerabilities in the deployed packages, if their database can be reached
	@$(BIN)/python -m deploy.audit

sbom: $(VENV)/installed ## Write the bill of materials of what is deployed: build/sbom.json (CycloneDX)
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements --output-reproducible --output-file build/sbom.json requirements.txt

clean: ## Remove what these commands made
	@rm -rf .venv build tests/front_end/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: requirements-dev.txt
	@$(PYTHON) -m deploy.install $@ $<

# The embedded stack needs a part of the above, and ./deploy.sh a part of that. Each can be installed alone.
$(VENV)/local: requirements-local.txt
	@$(PYTHON) -m deploy.install $@ $<

$(VENV)/deploy: requirements-deploy.txt
	@$(PYTHON) -m deploy.install $@ $<
