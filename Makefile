# labctl: `make lab` shows it at work, `make test` proves it. `make help` lists the rest.

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
# Emulated machines share the host's CPUs, and their deadlines suffer when too
# many boot at once.
TEST_P  ?= 2
PKG     ?= ./...
RUN     ?= .

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build
.PHONY: build ui browser-tools slurm-tools lab test test-slurm test-debian13 cover race fuzz deadcode check presets verdicts drift matrix bench bench-peers bench-go bench-slurm labs-full soak soak-kill qemu test-tools debian13-tools kernel-tools kernel-lab clean help need-go generated

build: need-go ## build bin/labctl, with the terminal of labctl serve where npm is
	@if command -v npm >/dev/null; then $(MAKE) ui || echo "build: without the terminal of labctl serve; make ui says why"; fi
	@echo "build: bin/labctl $(VERSION)"
	@$(GO) build -trimpath -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bin/labctl ./host/cmd/labctl

UI     := host/serve/ui
VENDOR := host/serve/web/vendor
XTERM  := $(UI)/node_modules/@xterm

ui: $(VENDOR)/xterm.mjs ## get xterm.js by npm, for labctl serve's terminal

$(VENDOR)/xterm.mjs: $(UI)/package-lock.json
	@command -v npm >/dev/null || { echo "ui: no npm on PATH (Debian: npm)" >&2; exit 3; }
	@echo "ui: npm ci in $(UI)"
	@cd $(UI) && npm ci --silent
	@mkdir -p $(VENDOR)
	@cp $(XTERM)/addon-fit/lib/addon-fit.mjs $(XTERM)/xterm/css/xterm.css $(VENDOR)
	@cp $(XTERM)/xterm/LICENSE $(VENDOR)/LICENSE.xterm
	@cp $(XTERM)/xterm/lib/xterm.mjs $(VENDOR)

AXE    := $(UI)/node_modules/axe-core/axe.min.js

$(AXE): $(UI)/package-lock.json
	@if command -v npm >/dev/null; then echo "browser-tools: npm ci in $(UI)"; cd $(UI) && npm ci --silent; \
	else echo "browser-tools: without axe-core, for there is no npm on PATH (Debian: npm)"; fi

lab: qemu build ## boot x86_64 and arm64, run every probe, print the stacks
	@echo "lab: bin/labctl probe run --all --arch amd64,arm64"
	@bin/labctl probe run --all --arch amd64,arm64

test: need-go test-tools ## run all tests, those that boot machines too (PKG=./host/... RUN=TestName narrow it)
	@echo "test: go vet"
	@$(GO) vet ./...
	@echo "test: go test, $(TEST_P) packages at a time"
	@$(GO) test -p $(TEST_P) -timeout 80m -run '$(RUN)' $(PKG)
	@echo "test: all pass"

test-slurm: slurm-tools qemu build ## run a matrix on a Slurm of its own, of two nodes on loopback, one of which dies; as root
	@$(GO) test ./host/matrix/slurm -count 1 -timeout 60m -run '^TestCluster$$' -v -labctl '$(CURDIR)/bin/labctl'

bench-slurm: slurm-tools qemu build ## measure a matrix by Slurm against the same without, on such a Slurm
	@$(GO) test ./host/matrix/slurm -timeout 60m -run '^$$' -bench '^BenchmarkCluster$$' -benchtime 3x -labctl '$(CURDIR)/bin/labctl'

test-debian13: need-go debian13-tools ## run all tests in a root of Debian 13, as root (PKG and RUN narrow it)
	@GO='$(GO)' exec .ci/debian13 PKG='$(PKG)' RUN='$(RUN)' TEST_P='$(TEST_P)'

cover: need-go ## print how much of each package its tests cover, without tests that start machines (COVER=-all: with them)
	@mkdir -p bin
	@$(GO) run ./host/tests cover $(COVER) -profile bin/cover.out $(PKG)

race: need-go ## run the tests that start no machine under the race detector (PKG=./host/... narrows it)
	@$(GO) run ./host/tests race $(PKG)

FUZZTIME ?= 10s

fuzz: need-go ## fuzz each target for FUZZTIME (10s) and print its rate (PKG=./host/... RUN=FuzzName narrow it)
	@$(GO) run ./host/tests fuzz -time $(FUZZTIME) -run '$(RUN)' $(PKG)

deadcode: need-go ## find functions that no program reaches, or only tests do
	@$(GO) run ./host/tests deadcode

check: need-go ## check form: gofmt, vet, staticcheck, dead code, import rules, modules, generated files
	@echo "check: gofmt"
	@bad=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .) && if [ -n "$$bad" ]; then echo "not in gofmt's form: run gofmt -w on"; echo "$$bad"; exit 1; fi
	@echo "check: go vet"
	@$(GO) vet ./...
	@echo "check: staticcheck"
	@$(GO) tool staticcheck ./...
	@echo "check: dead code"
	@$(MAKE) deadcode
	@echo "check: import rules"
	@$(GO) test ./host/imports
	@echo "check: modules are what go.sum says, and go.mod is tidy; images/uroot.mod likewise"
	@$(GO) mod verify
	@$(GO) mod tidy -diff
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cp images/uroot.mod "$$dir/go.mod" && cp images/uroot.sum "$$dir/go.sum" && \
	cd "$$dir" && $(GO) mod verify && $(GO) mod tidy -diff
	@$(MAKE) generated
	@echo "check: all well"

# Generated files are compared with what they would be now, whatever else is
# edited in the tree.
GENERATE_TOOLS := as ld llvm-mc llvm-objcopy
generated: need-go
	@echo "check: generated files"
	@for t in $(GENERATE_TOOLS); do command -v $$t >/dev/null || missing="$$missing $$t"; done; \
	if [ -n "$$missing" ]; then echo "check: generated files: not compared, because these are missing:$$missing (Debian: binutils llvm)"; exit 0; fi; \
	sums() { git ls-files -co --exclude-standard | sort | while IFS= read -r f; do if [ -f "$$f" ]; then cksum "$$f"; fi; done; }; \
	before=$$(sums) && $(GO) generate ./... && after=$$(sums) && \
	if [ "$$before" != "$$after" ]; then echo "generated files were stale; they are fresh now: look at git diff and commit"; exit 1; fi

# The file that gets the table, and how often each pair is measured.
BENCH_OUT   ?= bin/bench.txt
BENCH_PAIRS ?= 5
# Starts of each kind, and of them in one go; bin/soak.txt remembers the others.
SOAK        ?= 200
SOAK_BATCH  ?= 0
KILLS       ?= 30
BENCH       := $(GO) run ./host/bench -labctl bin/labctl

bench: qemu build ## measure labctl against bare QEMU boots: ratios, to BENCH_OUT (bin/bench.txt) as well
	@$(BENCH) -pairs $(BENCH_PAIRS) -out '$(BENCH_OUT)'

bench-peers: qemu build ## measure other tools (virtme-ng, vmtest) beside labctl, where they are installed
	@$(BENCH) -peers -pairs $(BENCH_PAIRS)

bench-go: need-go ## run the packages' own benchmarks (go test -bench), one package at a time
	@$(GO) test -p 1 -timeout 40m -run '^$$' -bench . -benchmem $(PKG)

presets: qemu build ## run every preset of labctl trace on 5.10 and 7.2, both architectures, and write docs/presets.md
	@$(GO) run ./host/docs -labctl bin/labctl -out docs/presets.md

matrix: qemu build ## run all labs on every kernel series and both architectures: a table, and records in labctl-out
	@bin/labctl matrix run --kernels 5.10,6.1,6.12,7.2 --arch amd64,arm64 --labs '*'

labs-full: qemu build ## the same, and on a board
	@s=0; $(MAKE) matrix || s=1; \
	bin/labctl matrix run --kernels 6.12 --board raspi3b --labs P1,P9,K1 || s=1; \
	exit $$s

kernel-lab: qemu kernel-tools build ## build a small 6.12 kernel from source for both architectures, and run all labs on it
	@bin/labctl kernel build --source debian:6.12 --arch amd64,arm64
	@bin/labctl matrix run --kernels build:lab-6.12 --arch amd64,arm64 --labs '*'

verdicts: qemu build ## run all labs everywhere and write docs/lab-verdicts.md
	@$(GO) run ./host/docs -labctl bin/labctl -page verdicts

# The page's own words end at the mark; below it is what labctl writes.
# DRIFT_AMD64=build:lab-4.14,5.10,7.2 has the column of a 4.14 that was built.
DRIFT_AMD64 ?= 5.10,7.2
drift: qemu build ## compare kernels by all labs, and write the lower part of docs/kernel-drift.md
	@diff() { bin/labctl matrix diff --kernels "$$1" --arch "$$2" --labs '*' \
		--only stacks,members,claims,tracepoints,syscalls --markdown; }; \
	mkdir -p bin && { diff $(DRIFT_AMD64) amd64 && echo && diff 5.10,7.2 arm64; } >bin/drift.md && \
	{ sed '/^<!-- Below/q' docs/kernel-drift.md; echo; cat bin/drift.md; } >bin/kernel-drift.md && \
	mv bin/kernel-drift.md docs/kernel-drift.md

soak: qemu build ## start SOAK machines in a row (200), warm and cold, and count what goes wrong; SOAK_BATCH=20 does it in pieces
	@soak() { $(BENCH) -soak $(SOAK) -batch $(SOAK_BATCH) -state bin/soak.txt "$$@"; }; \
	soak; warm=$$?; soak -cold && exit $$warm

soak-kill: qemu ## kill labctl KILLS times (30) at random moments and look for what is left
	@$(GO) test ./host/cmd/labctl -count 1 -timeout 120m -run '^TestKill$$' -v -kills $(KILLS)

# A command or a file, and the Debian package that has it.
QEMU_TOOLS := qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm qemu-system-arm:qemu-system-arm
KERNEL_TOOLS := make:make gcc:gcc flex:flex bison:bison bc:bc /usr/include/gelf.h:libelf-dev pahole:dwarves xz:xz-utils \
	aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu arm-linux-gnueabihf-gcc:gcc-arm-linux-gnueabihf
qemu:       TOOLS = $(QEMU_TOOLS)
kernel-tools: TOOLS = $(KERNEL_TOOLS)
test-tools: TOOLS = $(QEMU_TOOLS) trace-cmd:trace-cmd gdb-multiarch:gdb-multiarch gcc:gcc pahole:dwarves
browser-tools: $(AXE)
browser-tools: TOOLS = chromium:chromium /usr/share/fonts/truetype/nanum/NanumGothic.ttf:fonts-nanum
debian13-tools: TOOLS = debootstrap:debootstrap
slurm-tools: TOOLS = sbatch:slurm-client /usr/sbin/slurmctld:slurm-wlm /usr/sbin/slurmd:slurm-wlm /usr/sbin/munged:munge

qemu: ## install QEMU for x86 and Arm where it is missing (apt-get, as root or by sudo)
test-tools: ## the same, trace-cmd, which tests hold trace.dat files against, and gdb-multiarch
browser-tools: ## chromium, a Korean font and axe-core, with which tests use the page of labctl serve; they are skipped without it
debian13-tools: ## debootstrap, which makes the root of test-debian13
slurm-tools: ## Slurm and munge, for test-slurm; no daemon of theirs is started by it
kernel-tools: ## compilers and what else building kernels takes
qemu test-tools browser-tools debian13-tools slurm-tools kernel-tools:
	@missing=; \
	for pair in $(TOOLS); do \
		command -v "$${pair%:*}" >/dev/null || [ -f "$${pair%:*}" ] || case " $$missing " in \
			*" $${pair#*:} "*) ;; \
			*) missing="$$missing $${pair#*:}" ;; \
		esac; \
	done; \
	if [ -z "$$missing" ]; then echo "$@: present"; exit 0; fi; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if ! command -v apt-get >/dev/null; then \
		echo "$@: missing, and there is no apt-get here: install what Debian calls$$missing" >&2; exit 3; \
	elif [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo="sudo -n "; \
	else \
		echo "$@: missing:$$missing. Run: sudo apt-get update && sudo $$install" >&2; exit 3; \
	fi; \
	echo "$@: missing:$$missing. Running: $${sudo}apt-get update && $${sudo}$$install"; \
	$${sudo}apt-get update -q || echo "$@: apt-get update met errors; going on with the lists that are there" >&2; \
	$${sudo}env DEBIAN_FRONTEND=noninteractive $$install

clean: ## remove bin and run records; cached kernels and images stay (labctl's cache folder)
	rm -rf bin labctl-out

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

need-go:
	@command -v $(GO) >/dev/null || { echo "no go command on PATH: install Go 1.26 or newer" >&2; exit 3; }
