# Everything a person or CI runs here. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

# QUICKCHANGE_CACHE moves the model and the Python clients out of the working tree.
cache := $(if $(QUICKCHANGE_CACHE),$(QUICKCHANGE_CACHE),$(CURDIR)/.cache)
model_file := $(cache)/models/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: $(if $(QUICKCHANGE_MODEL),,model) ## build the server and run it on 127.0.0.1:8080 with every adapter in pretrained/ (QUICKCHANGE_* variables pass through)
	@$(CARGO) build --release --locked --package server
	@export QUICKCHANGE_MODEL="$${QUICKCHANGE_MODEL:-$(model_file)}" \
		QUICKCHANGE_HOST="$${QUICKCHANGE_HOST:-127.0.0.1}" \
		QUICKCHANGE_PORT="$${QUICKCHANGE_PORT:-8080}" \
		QUICKCHANGE_PRETRAINED="$${QUICKCHANGE_PRETRAINED:-pretrained}"; \
	exec $(CARGO) run --release --locked --package server

.PHONY: model
model: ## fetch the default base model, 98 MB, once
	@scripts/fetch-model >/dev/null

.PHONY: test
test: ## run every test; those that need the real model are skipped by name when it cannot be fetched
	@scripts/fetch-model >/dev/null || echo "make test: no base model, the tests that need it will say that they were skipped" >&2
	$(CARGO) test --workspace --locked

# Kernel sets beside the fastest, where this CPU has them.
other_kernels := portable $(if $(shell grep -m1 -o -w avx512_vnni /proc/cpuinfo 2>/dev/null),avx2)

.PHONY: test-kernels
test-kernels: ## run the tests over HTTP again under every other kernel set that this CPU has
	@for kernels in $(other_kernels); do \
		echo "tests with $$kernels kernels"; \
		QUICKCHANGE_KERNELS=$$kernels $(CARGO) test --locked --package tests --test it; \
	done

KILLS ?= 200

.PHONY: crash-loop
crash-loop: ## kill the server at random moments of uploads, activations, rollbacks and deletions, and compare what is left: make crash-loop KILLS=200
	QUICKCHANGE_KILLS=$(KILLS) $(CARGO) test --locked --package tests --test it crash_loop -- --nocapture

.PHONY: fuzz
fuzz: SECONDS = 60
fuzz: ## throw hostile input at every parser, that long each: make fuzz SECONDS=60 (needs a nightly toolchain and cargo-fuzz)
	@fuzz/run $(SECONDS)

.PHONY: sanitize
sanitize: ## run the tests of the kernels and the pool under AddressSanitizer and ThreadSanitizer
	@scripts/sanitize

.PHONY: check
check: ## formatting, lints and documentation, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: openapi
openapi: ## write openapi/openapi.json anew from the handlers
	$(CARGO) run --locked --package server -- openapi >openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

.PHONY: test-clients
test-clients: model ## drive a release server with the tools of others: openai, LiteLLM, LangChain, lm-evaluation-harness, schemathesis, load generators, PEFT, clients of TGI, LoRAX and Triton; hold every architecture to transformers (.ci/run takes the quick ones)
	@tests/clients/run

.PHONY: bench
bench: model ## measure the server against llama.cpp and PyTorch + PEFT in turns and write bench/RESULTS.md (make bench BENCH=--quick: 5 minutes)
	@bench/start $(BENCH)

MINUTES ?= 30

.PHONY: soak
soak: model ## do everything to a release server that clients do, at once, and check all the while what must hold: make soak MINUTES=30
	$(CARGO) build --release --locked --package server
	python3 bench/soak.py "$(or $(CARGO_TARGET_DIR),target)/release/server" --minutes $(MINUTES) --model "$(model_file)"

.PHONY: deny
deny: ## check licences, sources and duplicates of the dependencies (needs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "make deny: cargo-deny is not installed; cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check bans licenses sources

.PHONY: advisories
advisories: ## look the dependencies up in the advisory database, which cargo-deny fetches, and for versions that were withdrawn
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "make advisories: cargo-deny is not installed; cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check advisories

.PHONY: sbom
sbom: ## write what is built into server and trainer as CycloneDX into target/sbom (needs cargo-cyclonedx)
	@$(CARGO) cyclonedx --version >/dev/null 2>&1 || { echo "make sbom: cargo-cyclonedx is not installed; cargo install --locked cargo-cyclonedx" >&2; exit 1; }
	$(CARGO) cyclonedx --quiet --format json --spec-version 1.5 --describe binaries
	@mkdir -p target/sbom
	@for program in server trainer; do mv "$$program/$${program}_bin.cdx.json" "target/sbom/$$program.cdx.json"; done
	@ls target/sbom/*.cdx.json

.PHONY: check-deploy
check-deploy: model ## check the dashboard, the alerts and their tests, then all of them against a server and a Prometheus that run (needs Debian's package prometheus)
	$(CARGO) build --release --locked --package server
	deploy/check

# Ten adapters, two for each task: those of summaries, whose inputs are the longest, from one pass over the examples, the others from two.
# DATA is the folder of the paper's data sets, OUT where they go; started again, it goes on where it stopped.
OUT ?= .cache/pretrained
suite = $(CARGO) run --release --locked --package trainer -- suite --model "$(model_file)" --data "$(DATA)" --sizes 2000 --out "$(OUT)"

.PHONY: train-pretrained
train-pretrained: model ## train an FT and an FTICL adapter for each task: make train-pretrained DATA=folder OUT=folder
	@test -n "$(DATA)" || { echo "make train-pretrained: say where the data sets are: make train-pretrained DATA=folder" >&2; exit 1; }
	$(suite) --tasks inference,sentiment,question,detection
	$(suite) --tasks summary --epochs 1

.PHONY: evaluate-pretrained
evaluate-pretrained: ## measure the adapters of pretrained/ through a server that runs (QUICKCHANGE_DATA=folder make serve) and write their cards
	scripts/evaluate-pretrained
