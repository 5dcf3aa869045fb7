#!/usr/bin/env bash
# Builds target/debug/pgfleet-other: a pgfleet whose messages and shared memory are others, for the tests of upgrades. Of its own it has
# three crates; the rest is what pgfleet is built of. The second build puts target/debug/pgfleet back, and compiles nothing.
set -euo pipefail
target=${CARGO_TARGET_DIR:-target}
cargo build --package pgfleet --features other-build "$@"
install -m 755 "$target/debug/pgfleet" "$target/debug/pgfleet-other"
cargo build --package pgfleet "$@"
