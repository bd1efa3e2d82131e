# The front door. Everything is built by Meson into build/; `make help` lists what there is.
.PHONY: all build help demo train-logo check check-unit check-reference check-neon bench install fuzz fmt lint clean

BUILD ?= build/release
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60

all: build

help:
	@echo "make            install what is missing and build: $(BUILD)/src/cli/likeness"
	@echo "make demo       fetch real logos, index them, evaluate, show results (DEMO_SERVE=0: do not serve)"
	@echo "make train-logo train the logo model of models/logo anew, into build/logo-model"
	@echo "make check      build and run every test"
	@echo "make check-unit run the unit tests alone"
	@echo "make check-neon run the kernels for 64-bit Arm under an emulator"
	@echo "make bench      measure beside the peers"
	@echo "make fuzz       fuzz the parsers of untrusted bytes, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make install    install the program, the library and its headers below PREFIX=$(PREFIX)"
	@echo "make fmt, lint  format the code; check formatting, layers and headers"

build:
	@tools/setup build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix=$(PREFIX)
	@meson compile -C $(BUILD)

demo: build
	@tools/setup demo
	@tools/demo $(BUILD)/src/cli/likeness

train-logo: build
	@tools/setup demo
	@tools/logos/train $(BUILD)/src/cli/likeness build/logo-model

check:
	@tools/setup check
	@python3 tests/run

check-unit: build
	@python3 tests/run unit

check-reference: build
	@tools/setup check
	@BUILD=$(BUILD) tools/reference/run

check-neon:
	@tools/setup neon
	@python3 tests/run neon

bench: build
	@tools/setup check
	@bench/run $(BUILD)

install: build
	@meson install -C $(BUILD)

fuzz:
	@tools/setup check
	@tests/fuzz/run $(FUZZ_SECONDS)

fmt:
	@tools/lint/format --fix

lint:
	@python3 tests/run lint

clean:
	rm -rf build
