# capplunder. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PACKAGES ?= ./...
FUZZTIME ?= 30s
BENCH ?= .

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
CLI := github.com/plunder-app/capplunder/internal/cli
LDFLAGS := -s -w -X $(CLI).version=$(VERSION) -X $(CLI).commit=$(COMMIT) -X $(CLI).date=$(DATE)

# Tools are built from tools/go.mod, once per version of it, into a folder git ignores.
TOOLS := $(CURDIR)/.cache/bin
GOLANGCI_LINT := $(TOOLS)/golangci-lint
GORELEASER := $(TOOLS)/goreleaser
BENCHSTAT := $(TOOLS)/benchstat
KUBECTL := $(TOOLS)/kubectl

# The Kubernetes that tests run against: pinned in tools/kube, built once per version.
KUBE := $(CURDIR)/.cache/kube
# tools/kubeadm has a module for each kubeadm that reads our configurations.
KUBEADM := $(patsubst tools/kubeadm/%/go.mod,$(KUBE)/kubeadm-%,$(wildcard tools/kubeadm/*/go.mod))
KUBE_TOOLS := $(KUBE)/kube-apiserver $(KUBE)/etcd $(KUBE)/capi/.done $(KUBECTL) $(KUBEADM)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Everyday

.PHONY: build
build: ## Build bin/capplunder
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/capplunder ./cmd/capplunder

.PHONY: test
test: $(KUBE_TOOLS) ## Run all tests with the race detector; edits no file; needs no network after kube-tools
	go test -race -timeout 30m $(PACKAGES)

.PHONY: lint
lint: $(GOLANGCI_LINT) shellcheck ## Run the linters, import rules included
	$(GOLANGCI_LINT) run $(PACKAGES)

.PHONY: shellcheck
shellcheck: ## Check the shell scripts of this repository, and those it generates for machines
	scripts/shellcheck.sh

.PHONY: golden
golden: ## Rewrite the golden files from what the program prints now; read the diff
	grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n1 dirname | sort -u | xargs -I{} go test {} -update

##@ Files that follow from others

.PHONY: generate
generate: ## Tidy modules, format, run go generate
	go mod tidy
	gofmt -s -w $$(git ls-files -co --exclude-standard -- '*.go')
	go generate ./...

.PHONY: verify
verify: ## Fail if `make generate` would change anything; changes nothing itself
	scripts/verify.sh

##@ Longer checks

.PHONY: bench
bench: build $(KUBE_TOOLS) ## Run the benchmarks and their limits; start-up time against kubectl
	go test -count=1 -v -run Hundred ./pkg/apply
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 20m $(PACKAGES) | tee bin/bench.txt
	scripts/startup.sh bin/capplunder $(KUBECTL)

.PHONY: benchstat
benchstat: $(BENCHSTAT) ## Compare two saved benchmark runs: make benchstat OLD=a.txt NEW=b.txt
	$(BENCHSTAT) $(OLD) $(NEW)

.PHONY: fuzz
fuzz: ## Run every fuzz target, FUZZTIME (30s) each
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: real-debian
real-debian: $(KUBE)/kubeadm-1.30 $(KUBE)/kubeadm-1.36 ## Run the generated scripts on a real Debian in a folder; needs root, debootstrap, Debian's packages
	test/real/debian/run.sh

.PHONY: real-cycle
real-cycle: build ## Apply, delete and kill on a real plunder server, PLUNDER=/path/to/it; needs root and sshd (docs/testing.md)
	@[ -x "$(PLUNDER)" ] || { echo "error: no plunder server: make real-cycle PLUNDER=/path/to/plunder" >&2; exit 1; }
	go build -o bin/rack ./test/real/rack
	go build -o bin/cycle ./test/real/cycle
	bin/cycle -plunder $(PLUNDER) $(CYCLE)

##@ Releases

.PHONY: check-release
check-release: $(GORELEASER) ## Check .goreleaser.yaml
	$(GORELEASER) check

.PHONY: snapshot
snapshot: $(GORELEASER) ## Build the release archives into dist/, publish nothing
	$(GORELEASER) release --snapshot --clean

##@ The rest

.PHONY: tools
tools: $(GOLANGCI_LINT) $(GORELEASER) $(BENCHSTAT) $(KUBECTL) ## Build all tools that the targets above use

$(GOLANGCI_LINT): PKG := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(GORELEASER): PKG := github.com/goreleaser/goreleaser/v2
$(BENCHSTAT): PKG := golang.org/x/perf/cmd/benchstat
$(KUBECTL): PKG := ./kubectl
$(GOLANGCI_LINT) $(GORELEASER) $(BENCHSTAT) $(KUBECTL): tools/go.mod tools/go.sum
	cd tools && GOBIN=$(TOOLS) go install $(PKG)
	@touch $(TOOLS)/$(@F) # not $@: with KUBECTL=/usr/bin/kubectl that would be the system's

.PHONY: kube-tools
kube-tools: $(KUBE_TOOLS) ## Build the kube-apiserver, etcd and kubeadms of the tests, fetch Cluster API's CRDs

# Without cgo: then they run wherever .cache is copied to. The version is what go.mod says.
$(KUBE)/kube-apiserver $(KUBE)/etcd: tools/kube/go.mod tools/kube/go.sum
	@echo "building $(@F) of tools/kube/go.mod: about five minutes on two cores for all, once per version"
	version=$$(cd tools/kube && go list -m -f '{{.Version}}' k8s.io/kubernetes); \
	cd tools/kube && CGO_ENABLED=0 go build -trimpath -o $@ \
		-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version" $(PKG)
	@touch $@ # it may be what is there already
$(KUBE)/kube-apiserver: PKG := k8s.io/kubernetes/cmd/kube-apiserver
$(KUBE)/etcd: PKG := go.etcd.io/etcd/server/v3

# kubeadm looks at its own version to tell which Kubernetes versions it may install.
$(KUBEADM): $(KUBE)/kubeadm-%: tools/kubeadm/%/go.mod tools/kubeadm/%/go.sum
	@echo "building $(@F): one to two minutes on two cores, once per version"
	version=$$(cd tools/kubeadm/$* && go list -m -f '{{.Version}}' k8s.io/kubernetes); \
	minor=$${version#v1.}; cd tools/kubeadm/$* && CGO_ENABLED=0 go build -trimpath -o $@ \
		-ldflags "-s -w $$(printf -- '-X k8s.io/component-base/version.%s ' "gitVersion=$$version" gitMajor=1 "gitMinor=$${minor%%.*}")" \
		k8s.io/kubernetes/cmd/kubeadm
	@touch $@

$(KUBE)/capi/.done: tools/kube/capi.sum tools/kube/capi-crds.sh
	tools/kube/capi-crds.sh $(@D)
	@touch $@

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist completions .cache
