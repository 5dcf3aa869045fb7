# What the scripts of this folder share. Sourced from bash with `set -euo pipefail`.
#
# lib/ holds one purpose a file: say, packages, person (the ordinary user), tidy (temporary folder, processes), postgres, postgres_newest, and the
# drivers by language: python, node, java.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${PGFLEET_CACHE:-$ROOT/target/cache}
for part in say packages person tidy postgres postgres_newest python node java; do
  . "$ROOT/scripts/lib/$part.sh"
done
unset part

# Builds the release binary, whose path is then in BINARY.
build_binary() {
  say "building pgfleet (release)"
  (cd "$ROOT" && cargo build --release --locked -p pgfleet) >&2 || die "the build failed"
  BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/release/pgfleet
}
