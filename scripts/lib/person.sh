# The ordinary user that servers run as: PostgreSQL and pgfleet both refuse to run as root. Sourced.
#
# Root gets a system user without login, made once and kept; anyone else is that user.

PGFLEET_TEST_USER=${PGFLEET_TEST_USER:-pgfleet-test}

# Sets and exports PGFLEET_TEST_USER, creating the user when run as root.
need_person() {
  if [ "$(id -u)" != 0 ]; then
    PGFLEET_TEST_USER=$(id -un)
  elif ! id "$PGFLEET_TEST_USER" >/dev/null 2>&1; then
    say "creating the system user $PGFLEET_TEST_USER to run servers as"
    useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin "$PGFLEET_TEST_USER"
  fi
  export PGFLEET_TEST_USER
}

# Replaces the calling (sub)shell by the command, run as that user, so that the shell's pid becomes the command's.
exec_as_person() {
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid "$PGFLEET_TEST_USER" --regid "$PGFLEET_TEST_USER" --init-groups --inh-caps=-all -- "$@"
  fi
  exec "$@"
}

as_person() { (exec_as_person "$@"); }

# let_person_reach BINARY: root's checkout may lie where the ordinary user, who runs the servers, cannot look; then PGFLEET_BINARY is a copy.
let_person_reach() {
  if [ -x "$1" ] && ! as_person test -x "$1"; then
    make_work_folder
    install -m 755 "$1" "$WORK/pgfleet"
    [ ! -x "$1-other" ] || install -m 755 "$1-other" "$WORK/pgfleet-other"
    export PGFLEET_BINARY=$WORK/pgfleet
  fi
}
