# Two commands do everything on a fresh machine: `make demo` and `make test`.
# What takes long is cached by content under $(CACHE) and can be interrupted at any time.

comma := ,
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tunesmith
BUILD := $(CURDIR)/build
PYTHON ?= python3
OPERATOR_PYTHON := $(BUILD)/venvs/operator/bin/python
ML_PYTHON := $(BUILD)/venvs/ml/bin/python

export KUBECONFIG := $(BUILD)/kubeconfig
export PYTHONPATH := $(CURDIR):$(CURDIR)/operator:$(CURDIR)/trainer_image:$(CURDIR)/devcluster
export PATH := $(BUILD)/bin:$(PATH)
# Nothing may reach a model hub, whatever a library would like to fetch.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

say = @printf '\n\033[1m==> %s\033[0m\n' "$(1)"
# The name of an environment's cache folder: the hash of everything that is installed in it.
hash = $(shell cat $(1) | sha256sum | cut -c1-16)

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# --- environments --------------------------------------------------------------------------------

.PHONY: environments
environments: $(BUILD)/venvs/operator $(BUILD)/venvs/ml ## Set up the Python environments.

OPERATOR_VENV := $(CACHE)/venvs/operator-$(call hash,operator/constraints.txt)
ML_VENV := $(CACHE)/venvs/ml-$(call hash,devcluster/ml-packages.txt)

# The links are made anew each time, as a link's age says nothing about what it points to.
.PHONY: $(BUILD)/venvs/operator $(BUILD)/venvs/ml
$(BUILD)/venvs/operator: $(OPERATOR_VENV)/.complete
	@mkdir -p $(@D) && ln -sfn $(OPERATOR_VENV) $@

$(BUILD)/venvs/ml: $(ML_VENV)/.complete
	@mkdir -p $(@D) && ln -sfn $(ML_VENV) $@

$(OPERATOR_VENV)/.complete:
	$(call say,Python environment of the operator and the tests (about 20 s))
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r operator/constraints.txt
	@touch $@

$(ML_VENV)/.complete:
	$(call say,Python environment with torch$(comma) TRL and vLLM (7 GB: 3 to 6 minutes the first time))
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		-r devcluster/ml-packages.txt
	@touch $@



# --- the cluster ---------------------------------------------------------------------------------

.PHONY: cluster
cluster: ## Start a real single-node Kubernetes (build/kubeconfig).
	@mkdir -p $(CACHE)/venvs
	@$(PYTHON) -m devcluster up --mount $(CACHE)/venvs:/opt/tunesmith/venvs

.PHONY: cluster-down
cluster-down: ## Stop it and leave nothing behind.
	@$(PYTHON) -m devcluster down
	@$(PYTHON) -m devcluster verify-clean

# A development image holds nothing: its containers see this machine's Python and these sources.
DEV_PATH = /opt/tunesmith/venvs/$(notdir $(1))/bin:/usr/sbin:/usr/bin:/bin
DEV_PYTHONPATH := /opt/tunesmith/operator:/opt/tunesmith/trainer_image
image = $(PYTHON) -m devcluster image tunesmith.dev/$(1):dev --entrypoint=python3 \
	--env PATH=$(call DEV_PATH,$(2)) --env PYTHONPATH=$(DEV_PYTHONPATH)

.PHONY: images
images: environments ## Make the development images: a few bytes each.
	@$(call image,operator,$(OPERATOR_VENV))
	@# The same under another name: what an upgrade of the operator brings.
	@$(call image,operator-next,$(OPERATOR_VENV))
	@$(call image,trainer,$(ML_VENV))
	@$(call image,vllm,$(ML_VENV))

.PHONY: install
install: environments cluster images crds-check ## Install the chart into the cluster.
	$(call say,Installing the Helm chart)
	@helm upgrade --install tunesmith charts/tunesmith --namespace tunesmith-system \
		--create-namespace --values devcluster/chart-values.yaml $(INSTALL_FLAGS) \
		--wait --timeout 3m > /dev/null
	@kubectl rollout restart --namespace tunesmith-system deployment/tunesmith-operator
	@kubectl rollout status --namespace tunesmith-system deployment/tunesmith-operator

# --- generated files -----------------------------------------------------------------------------

.PHONY: crds crds-check
crds: $(BUILD)/venvs/operator ## Generate the CRDs from the API models.
	@$(OPERATOR_PYTHON) -m tunesmith.api.crd

crds-check: $(BUILD)/venvs/operator
	@$(OPERATOR_PYTHON) -m tunesmith.api.crd --check

.PHONY: reference reference-check
reference: $(BUILD)/venvs/operator ## Generate docs/reference.md from the API models.
	@$(OPERATOR_PYTHON) -m tunesmith.api.reference

reference-check: $(BUILD)/venvs/operator
	@$(OPERATOR_PYTHON) -m tunesmith.api.reference --check

# --- checks and tests ----------------------------------------------------------------------------

PACKAGES := operator/tunesmith trainer_image/tunesmith_trainer devcluster/devcluster

.PHONY: lint
lint: $(BUILD)/venvs/operator crds-check reference-check ## Format, lint, types, generated files.
	@$(OPERATOR_PYTHON) -m ruff format --check --quiet .
	@$(OPERATOR_PYTHON) -m ruff check --quiet .
	@$(OPERATOR_PYTHON) -m mypy $(PACKAGES) tests

.PHONY: test-fast
test-fast: lint $(BUILD)/venvs/ml ## What needs no cluster (6 minutes, more the first time).
	@$(PYTHON) -m devcluster packages
	@$(PYTHON) -m devcluster build-s3
	@$(PYTHON) -m devcluster build-gitops
	@$(OPERATOR_PYTHON) -m pytest tests/unit tests/proxy tests/model tests/gitops tests/chart \
		--ignore tests/unit/trainer
	@# In a process of its own: how much memory a bomb may take depends on what was there before.
	@$(ML_PYTHON) -m pytest tests/unit/trainer/test_hostile_*.py
	@$(ML_PYTHON) -m pytest tests/unit/trainer tests/stores --ignore-glob="*/test_hostile_*"

.PHONY: test-model
test-model: $(BUILD)/venvs/operator ## Random histories against docs/invariants.md, ten times as many.
	@$(OPERATOR_PYTHON) -m pytest tests/model --hypothesis-profile many-histories \
		--hypothesis-show-statistics

.PHONY: test-cluster
test-cluster: install ## Against the real API server and kubelet.
	@$(PYTHON) -m devcluster build-kueue
	@$(OPERATOR_PYTHON) -m pytest tests/cluster -v

.PHONY: test-e2e
test-e2e: install ## Real training, evaluation and serving, with the operator killed in between.
	@$(OPERATOR_PYTHON) -m pytest tests/e2e -v --durations=12

.PHONY: new-user
new-user: environments ## The quick start's own commands on a fresh cluster, timed.
	@$(MAKE) --no-print-directory cluster
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory images; \
	$(OPERATOR_PYTHON) -m tests.e2e.quick_start

.PHONY: test-fuzz
test-fuzz: ## Ten thousand fuzzed objects against the real API server (8 minutes).
	@$(MAKE) --no-print-directory cluster
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory install INSTALL_FLAGS="$(USUAL_PAUSES)"; \
	$(OPERATOR_PYTHON) -m tests.fuzz.campaign $(OPTIONS)

.PHONY: test-faults test-faults-quick
test-faults: environments ## Faults at every write and around it, on simulated GPUs (half an hour).
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory cluster; \
	$(OPERATOR_PYTHON) -m pytest tests/faults -s $(OPTIONS)

test-faults-quick: environments ## A few faults of each kind, every right (4 minutes).
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory cluster; \
	$(OPERATOR_PYTHON) -m pytest tests/faults -s --selection $(OPTIONS)

.PHONY: test-rights
test-rights: environments ## Each right of the operator taken away in turn: something breaks (90 s).
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory cluster; \
	$(OPERATOR_PYTHON) -m pytest tests/faults/test_rights.py -s $(OPTIONS)

.PHONY: test-images
test-images: $(BUILD)/venvs/operator ## Build both Dockerfiles.
	@$(PYTHON) -m devcluster packages --for-images
	@$(OPERATOR_PYTHON) -m pytest tests/images -v

.PHONY: test
test: ## Everything, from a bare machine to a clean one.
	$(call say,1/5 lint and unit tests)
	@$(MAKE) --no-print-directory test-fast
	$(call say,2/5 both images from their Dockerfiles (about 3 minutes))
	@$(MAKE) --no-print-directory test-images
	$(call say,3/5 some faults of each kind$(comma) and every right taken away (4 minutes))
	@$(MAKE) --no-print-directory test-faults-quick
	$(call say,4/5 against the API server)
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory test-cluster; \
	printf '\n\033[1m==> 5/5 the whole chain\033[0m\n'; \
	$(MAKE) --no-print-directory test-e2e

.PHONY: gitops-statuses
gitops-statuses: install ## Take the statuses that the health checks are tested with from a cluster.
	@$(PYTHON) -m devcluster kwok-up
	@$(OPERATOR_PYTHON) -m tests.gitops.record

# --- benchmarks: each prints a table and writes build/bench/NAME.json ---------------------------

.PHONY: bench-serving
bench-serving: install ## Adapters, merged weights and base; hot loads; a thousand adapters.
	@$(OPERATOR_PYTHON) -m tests.bench.serving

.PHONY: bench-several-gpus
bench-several-gpus: $(BUILD)/venvs/ml ## DDP and FSDP2 against one GPU; needs two (20 minutes).
	@$(ML_PYTHON) -m tests.bench.several_gpus

.PHONY: bench-eval
bench-eval: $(BUILD)/venvs/ml ## Both sides from one load, against lm-eval run twice (6 minutes).
	@$(ML_PYTHON) -m tests.bench.evaluation

.PHONY: bench-data
bench-data: $(BUILD)/venvs/ml ## Near-duplicates against datasketch, and what both miss (1 minute).
	@$(ML_PYTHON) -m tests.bench.data

.PHONY: bench-train
bench-train: $(BUILD)/venvs/ml ## The training engine beside TRL, on one GPU (18 minutes).
	@$(ML_PYTHON) -m tests.bench.training

# The chart's own pauses, not the short ones of demonstrations.
USUAL_PAUSES := --set operator.progressIntervalSeconds=10,operator.firstRetryDelaySeconds=15

# The cluster first: where it is refused, since another checkout's runs, nothing is to be removed.
.PHONY: bench-operator
bench-operator: ## A thousand jobs at once beside bare Jobs, five thousand at rest (50 minutes).
	@$(MAKE) --no-print-directory cluster
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory install INSTALL_FLAGS="$(USUAL_PAUSES)"; \
	$(OPERATOR_PYTHON) -m tests.bench.operator_scale $(OPTIONS)

.PHONY: soak
soak: ## Churn for ten minutes, and what grows meanwhile; OPTIONS="--minutes 3" for less.
	@$(MAKE) --no-print-directory cluster
	@trap '$(MAKE) --no-print-directory cluster-down' EXIT; \
	$(MAKE) --no-print-directory install INSTALL_FLAGS="$(USUAL_PAUSES)"; \
	$(OPERATOR_PYTHON) -m tests.bench.soak $(OPTIONS)

# --- the demo ------------------------------------------------------------------------------------

.PHONY: demo
demo: ## One finetune.yaml in, a served adapter out, on a real Kubernetes.
	@$(MAKE) --no-print-directory install
	@$(OPERATOR_PYTHON) -m examples.demo.run
