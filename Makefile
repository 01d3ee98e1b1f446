# The targets are the same here and in continuous integration (.ci/run).
GO    ?= go
PKGS  ?= ./...
TOOL   = $(GO) tool -modfile=$(CURDIR)/tools/go.mod
MODULE = github.com/managemyclaw/hardshell
FUZZTIME ?= 10s
BASE  ?= HEAD~1

# Modules of their own, which use this one as a stranger would.
EXAMPLES = examples/customcheck

.PHONY: all check deps fmt vet lint cross tidy test openclaw demo fuzz bench api

all: check test

check: fmt vet lint cross tidy

# What the lab needs of the distribution: a container engine, packet filters.
deps:
	@scripts/install-deps

fmt:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }

vet:
	$(GO) vet $(PKGS)
	@out=$$($(GO) fix -diff $(PKGS) 2>&1); test -z "$$out" || { echo "$$out"; exit 1; }

lint:
	$(TOOL) golangci-lint run $(PKGS)

# Every package must compile, tests included, where it cannot work.
cross:
	for os in darwin windows; do GOOS=$$os CGO_ENABLED=0 $(GO) vet $(PKGS) || exit 1; done

tidy:
	$(GO) mod tidy -diff
	for dir in $(EXAMPLES); do (cd $$dir && $(GO) mod tidy -diff) || exit 1; done

# All tests, those that need a real engine, kernel and root included. Where
# they cannot run they say why; with CI=true that is a failure. The kill switch is
# tested when nothing else is: it has to be in time.
ALONE = github.com/managemyclaw/hardshell/examples/managemyclaw
test:
	@scripts/install-deps race
	@scripts/install-node-sdk || echo "The tests with the official SDK are skipped."
	rest=$$($(GO) list $(PKGS) | grep -vx $(ALONE)); [ -z "$$rest" ] || $(GO) test -race -shuffle=on -timeout 30m $$rest
	alone=$$($(GO) list $(PKGS) | grep -x $(ALONE)); [ -z "$$alone" ] || $(GO) test -race -shuffle=on -timeout 30m $$alone
	for dir in $(EXAMPLES); do (cd $$dir && $(GO) vet ./... && $(GO) test -race ./...) || exit 1; done

# The soft stop against OpenClaw itself, which is 850 MB and takes its time to
# start: the same cases as against the stand-in of "make test", and restarts.
openclaw:
	$(GO) vet -tags openclaw ./harden/openclaw/softstop
	dir=$$(scripts/install-openclaw) && OPENCLAW_DIR=$$dir $(GO) test -tags openclaw -run 'TestOpenClaw|TestRestart' -v -count=1 -timeout 60m ./harden/openclaw/softstop

demo: deps
	$(GO) run ./examples/demo

# One target at a time is all that go test -fuzz allows.
fuzz:
	@for p in $$($(GO) list $(PKGS)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    echo "$$p $$f"; \
	    $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; \
	done

bench: deps
	$(GO) test -run '^$$' -bench . -benchmem -count $${COUNT:-6} -timeout 60m $(PKGS) | tee new.bench
	@test ! -f old.bench || $(TOOL) benchstat old.bench new.bench

# apidiff exits with 0 even when it finds something: what it prints counts.
api:
	@rm -rf .api && git worktree prune && git worktree add -q .api $(BASE) && \
	trap 'git worktree remove -f .api' EXIT; \
	(cd .api && $(TOOL) apidiff -m -w ../old.api $(MODULE)) && \
	out=$$($(TOOL) apidiff -m -incompatible old.api $(MODULE) 2>/dev/null); \
	if [ -n "$$out" ]; then echo "$$out"; grep -q 'BREAKING' CHANGELOG.md || exit 1; fi
