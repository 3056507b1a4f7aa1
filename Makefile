# The commands of daily work. Each does its own set-up on a Debian 12 or 13 with only git and make.
#
#   make build   static programs for amd64 and arm64, into dist/
#   make test    every test, with the race detector, against the real tools
#   make test-vm  all tests in virtual machines, as root; VM='Boot|Damaged' picks some. make test has the quick ones
#   make lint    gofumpt, go vet, golangci-lint
#   make demo    the main job from end to end, as root; KEEP=1 leaves it running
#   make demo-vm  the same with a virtual machine as the node; KEEP=1 leaves it running
#   make man     man pages and shell completions, into dist/share
#   make bench   the side-by-side measurements of bench/

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.cache/tools/bin:$(PATH):/usr/local/go/bin

PROGRAMS := powernode-agent powernode-platform powernode
ARCHES   := amd64 arm64
SOURCES  := $(wildcard cmd internal bench test packaging initramfs)
MODULE   := github.com/powernode/powernode-agent
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE     := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X $(MODULE)/internal/version.version=$(VERSION) \
            -X $(MODULE)/internal/version.commit=$(COMMIT) -X $(MODULE)/internal/version.date=$(DATE)
GOBUILD   = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.PHONY: build native test test-vm lint demo demo-vm man bench clean base tools vm $(ARCHES)

build: $(ARCHES)

$(ARCHES): base
	@for p in $(PROGRAMS); do echo "build dist/linux-$@/$$p"; \
	  GOOS=linux GOARCH=$@ $(GOBUILD) -o dist/linux-$@/$$p ./cmd/$$p; done

native: base
	@$(MAKE) --no-print-directory $$(go env GOHOSTARCH)

# Each program that ends would wait a second for races that it may still have; the tests start hundreds. The longest come first. Nothing is taken
# from the cache of results, which doesn't know the programs that a test builds and runs.
test: base tools vm
	GORACE=atexit_sleep_ms=10 POWERNODE_REQUIRE_TOOLS=1 go test -race -count=1 -p 3 -timeout 20m ./test/... ./...
	CGO_ENABLED=0 go test -trimpath -count=1 ./test/faults

test-vm: base tools vm
	CGO_ENABLED=0 POWERNODE_VM=all POWERNODE_REQUIRE_TOOLS=1 go test -count=1 -timeout 60m ./test/vm -v $(if $(VM),-run '$(VM)')

lint: base
	@scripts/setup lint
	@test -z "$$(gofumpt -l $(SOURCES))" || { gofumpt -d $(SOURCES); exit 1; }
	go vet ./...
	golangci-lint run ./...

demo: native tools
	@scripts/demo $(if $(KEEP),--keep)

demo-vm: native vm
	@scripts/demo-vm $(if $(KEEP),--keep)

man: base
	go run ./packaging/man dist/share

bench: native tools
	@for b in bench/*.sh; do echo "== $$b"; bash $$b; done

clean:
	rm -rf dist

base:
	@scripts/setup base

tools:
	@scripts/setup tools

vm:
	@scripts/setup vm
