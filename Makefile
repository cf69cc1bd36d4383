# Two commands do all the set-up on a fresh Debian or Ubuntu machine with a Rust toolchain, a C
# compiler and make:  `make demo` shows Farewall at work, `make test` passes the tests.
# Behind them stand plain `cargo run --release -- demo` and `cargo test`.

.PHONY: demo test e2e kills-postgres faults check-tools

demo: check-tools
	cargo run --release -- demo $(ARGS)

test: check-tools
	cargo test --locked

# Needs node and python3; skips loudly without them. Everything else it installs itself.
e2e: check-tools
	tests/e2e/run.sh

# Ends walls that share one PostgreSQL with SIGKILL, again and again, under paid load. Needs the
# programs of a PostgreSQL server: apt-get install postgresql.
KILLS ?= 500
kills-postgres: check-tools
	CI=true FAREWALL_PG_KILLS=$(KILLS) cargo test --locked --test it postgres::kills -- --nocapture

# Tries every kind of fault, and prints one table. tests/faults.sh says what can be chosen.
faults: check-tools
	tests/faults.sh $(ARGS)

# pingora compresses with zlib-ng, whose build needs cmake.
check-tools:
	@command -v cmake >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing cmake, which the build of zlib-ng needs"; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends cmake >/dev/null; \
	  else \
	    echo "error: cmake is missing, which the build of zlib-ng needs."; \
	    echo "help:  install it first: sudo apt-get install cmake   (Fedora: dnf install cmake, macOS: brew install cmake)"; \
	    exit 1; \
	  fi; }
