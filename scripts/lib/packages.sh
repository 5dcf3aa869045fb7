# Debian packages: installs what is missing and nothing else. Sourced; needs `say` and `die` from say.sh.

# Runs a command as root: directly, or through sudo for an ordinary user (asking for nothing when CI is set).
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    if [ -n "${CI:-}" ]; then sudo -n "$@"; else sudo "$@"; fi
  else
    die "this needs root and there is no sudo: $*"
  fi
}

package_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages NAME...: installs those that are not there. Package lists are fetched only when something is missing.
# No service comes with them, now or at the next boot: scripts and tests start what they need, and end it.
need_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || die "these scripts install what they need with apt-get; this is no Debian system. Needed: $*"
  for name in "$@"; do
    package_installed "$name" || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
  as_root sh -c "$INSTALL" sh "${missing[@]}" >/dev/null || die "apt-get could not install ${missing[*]}"
}

# Run by root's sh, so that the policy (invoke-rc.d(8)) is gone again however the installation ends. One that is there already stays.
INSTALL='
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap "rm -f $policy" EXIT
  trap "exit 130" HUP INT TERM
  printf "#!/bin/sh\nexit 101\n" >"$policy"
  chmod 755 "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" || exit
for name in "$@"; do
  [ ! -e "/etc/init.d/$name" ] || update-rc.d "$name" disable
done
'

# The folder of the newest PostgreSQL programs on this machine, in PGFLEET_PG_BIN. One named by the caller is kept.
find_postgres() {
  if [ -z "${PGFLEET_PG_BIN:-}" ]; then
    PGFLEET_PG_BIN=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  fi
  [ -x "$PGFLEET_PG_BIN/initdb" ] || die "no initdb in '${PGFLEET_PG_BIN:-/usr/lib/postgresql/*/bin}'"
  export PGFLEET_PG_BIN
}

# PostgreSQL's server and client programs. pgbench is in the server package; the contrib modules came with it in version 10.
need_postgres() {
  if [ -z "${PGFLEET_PG_BIN:-}" ] && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    need_packages postgresql postgresql-contrib
  fi
  find_postgres
}

# The oldest Rust that builds the workspace (rust-version in Cargo.toml).
RUST_NEEDED=1.88

# The Rust toolchain, which is not ours to fetch (Debian 12's own is too old), and a compiler for the few crates with C or assembly.
need_rust() {
  local found
  if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
  found=$(cargo --version 2>/dev/null | awk '{ print $2 }') || true
  if [ "$(printf '%s\n' "$RUST_NEEDED" "${found:-0}" | sort -V | head -n 1)" != "$RUST_NEEDED" ]; then
    die "this needs Rust $RUST_NEEDED or newer; found: ${found:-none}. Install the stable toolchain with rustup (https://rustup.rs), then run this again."
  fi
  # libpam0g-dev: the supervisor is linked with PAM
  need_packages gcc libc6-dev make pkg-config libpam0g-dev
}
