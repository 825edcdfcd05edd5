# `make test` is what CI runs. It needs Go and git, and a C compiler for the race
# detector; everything else is fetched at pinned versions. With Debian's prometheus
# installed, a real one scrapes a server; without it, that test is skipped.

# A clone that belongs to somebody else, as in CI, must build all the same, and
# every build must be reproducible: no facts about the checkout go in.
export GOFLAGS := -buildvcs=false $(filter-out -buildvcs=%,$(GOFLAGS))

TOOLS := go tool -modfile=internal/tools/go.mod
RACE := $(if $(shell command -v "$${CC:-gcc}" || command -v cc),-race)
FUZZTIME ?= 10s
VERSION ?=

.PHONY: build test check fmt-check vet staticcheck lint unit interop fuzz-short bench bench-build bench-ledger bench-live bench-packages image-check clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=$(VERSION)" -o bin/sealstone ./cmd/sealstone

test: fmt-check vet staticcheck unit

# Everything that a release must pass.
check: test lint interop fuzz-short image-check
	go mod verify
	go mod tidy -diff

fmt-check:
	@out=$$(gofmt -l $$(find . -name '*.go' -not -path './.git/*')); \
	if [ -n "$$out" ]; then echo "not formatted by gofmt:"; echo "$$out"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	$(TOOLS) staticcheck ./...

lint:
	$(TOOLS) golangci-lint run ./...

# All packages, with the real-git and real-socket tests of integration/.
unit:
	@if [ -z "$(RACE)" ]; then echo "no C compiler: testing without the race detector"; fi
	go test $(RACE) -shuffle=on -timeout 12m ./...
	@if [ -n "$(RACE)" ]; then echo "what the race detector's own memory would hide:"; go test -timeout 5m -run '^Test(HostileRepositoriesEnd|AHostilePushIsRefused|ATipThatAsksForTooMuchIsRefused)$$' ./integration; fi

# Other people's tools judge what we write. Each has a module of its own, so that
# the product depends on none of them.
interop:
	@for mod in integration/*/go.mod bench/go.mod; do \
		[ -e "$$mod" ] || continue; \
		echo "== $$(dirname "$$mod")"; (cd "$$(dirname "$$mod")" && go test ./...) || exit 1; \
	done

fuzz-short:
	FUZZTIME=$(FUZZTIME) scripts/fuzz-short

# The flag evaluator against others, in one run: docs/benchmarks.md.
bench:
	cd bench && go run . -o ../docs/benchmarks.md

# The bundler on 50,000 generated files, beside go-git and git: docs/benchmarks.md.
bench-build:
	cd bench && go run ./build -o ../docs/benchmarks.md

# Reports and questions at 100,000 instances and 1,000,000 changes: docs/benchmarks.md.
bench-live:
	scripts/bench-live

# The ledger: appends beside bare commits, and a log of SEALSTONE_BENCH_CHANGES.
bench-ledger:
	SEALSTONE_BENCH_LEDGER=$(CURDIR)/docs/benchmarks.md go test -run '^TestReport$$' -count 1 -timeout 60m ./internal/store

bench-packages:
	go test -run '^$$' -bench . -benchmem ./...

image-check:
	scripts/image-check

clean:
	rm -rf bin dist
