# A temporary folder and the processes started from it; both are gone when the script ends, however it ends. Sourced.
#
# Processes are remembered by pid and ended by pid, the youngest first.

WORK=
TIDY_PIDS=()
TIDY_STOP=()

# Makes the temporary folder WORK, owned by the ordinary user, and arranges the tidying.
# It lies in /tmp, not $TMPDIR: the path of a Unix socket in it must stay under 107 bytes.
make_work_folder() {
  WORK=$(mktemp -d "/tmp/pgfleet-$(basename "$0").XXXXXX")
  chmod 755 "$WORK"
  [ "$(id -u)" != 0 ] || chown "$PGFLEET_TEST_USER:" "$WORK"
  trap tidy EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# remember PID SIGNAL: ends this child with SIGNAL when tidying.
remember() {
  TIDY_PIDS+=("$1")
  TIDY_STOP+=("$2")
}

# end_process PID SIGNAL: sends it, waits up to 10 s, then kills.
end_process() {
  local pid=$1 signal=$2 turn
  kill -s "$signal" "$pid" 2>/dev/null || return 0
  for turn in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  [ "$turn" -lt 100 ] || kill -s KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

tidy() {
  local status=$? i
  trap '' HUP INT TERM
  trap - EXIT
  for ((i = ${#TIDY_PIDS[@]} - 1; i >= 0; i--)); do
    end_process "${TIDY_PIDS[i]}" "${TIDY_STOP[i]}"
  done
  [ -z "$WORK" ] || rm -rf "$WORK"
  exit "$status"
}

# Leaves everything running and the folder in place: for --keep.
leave_running() {
  trap - EXIT HUP INT TERM
  TIDY_PIDS=()
}

# A TCP port on which nothing listens now. Taken below the range that the kernel gives to outgoing connections,
# so that no client of the test itself can be on it.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM << 3 ^ RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return 0
    fi
  done
  die "found no free port"
}
