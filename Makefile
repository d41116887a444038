# Everything a checkout needs: rustup's cargo, a C compiler (for SQLite), make.
CARGO ?= cargo
BIN := target/debug/comfy-router
WASM := wasm32-unknown-unknown

TOOLS := $(CURDIR)/target/test-tools
POLICIES := $(CURDIR)/target/policies-examples

.PHONY: demo test test-tools check bench policies policies-examples wasm-target clean

## demo: build, then run four emulated instances, the router and a mixed load for about a minute
demo: wasm-target
	$(CARGO) build --locked -p comfy-router
	$(BIN) demo

## test: every test, those with a Chromium, foreign clients and policies in five languages included
test: wasm-target test-tools
	$(CARGO) test --locked --workspace --no-run
	examples/policies/run $(BIN) $(POLICIES)
	COMFY_ROUTER_BIN=$(CURDIR)/$(BIN) COMFYUI_EMULATOR_BIN=$(CURDIR)/target/debug/comfyui-emulator TEST_TOOLS=$(TOOLS) TEST_POLICIES=$(POLICIES) \
		$(CARGO) test --locked --workspace

## policies-examples: the example policy in five languages and a new project of each, built and tested; compilers are fetched once
policies-examples: wasm-target
	$(CARGO) build --locked -p comfy-router
	examples/policies/run $(BIN) $(POLICIES)

## test-tools: Chromium, Node.js, Python, the stock page and foreign ComfyUI clients, for the tests; fetched once
test-tools:
	tests/tools/setup.sh $(TOOLS)

## check: formatting, lints and, where cargo-deny is installed, advisories and licences
check: wasm-target
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
		else echo "cargo-deny is not installed: advisories and licences not checked (cargo install cargo-deny)"; fi

## bench: release builds of the benchmarks; nginx and wrk, if installed, for the comparison with a proxy
bench: wasm-target
	$(CARGO) bench --locked -p comfy-router

## policies: the shipped policies as components, into target/policies
policies: wasm-target
	$(CARGO) run --locked -p comfy-router-policy-build -- target/policies

wasm-target:
	@if command -v rustup >/dev/null 2>&1; then rustup target add $(WASM); fi

clean:
	$(CARGO) clean
