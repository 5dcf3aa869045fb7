# A throw-away PostgreSQL in the temporary folder: nobody's data, no durability, local trust. Sourced.
#
# Needs WORK (tidy.sh), PGFLEET_PG_BIN (packages.sh) and the ordinary user (person.sh).

PG_PORT=
PG_SOCKETS=
PG_PID=

# start_postgres MAX_CONNECTIONS: sets PG_PORT, PG_SOCKETS (folder of the Unix socket) and PG_PID. Superuser: postgres.
start_postgres() {
  local data=$WORK/postgres turn
  PG_SOCKETS=$WORK
  PG_PORT=$(free_port)
  as_person "$PGFLEET_PG_BIN/initdb" --pgdata "$data" --username postgres --auth trust --no-sync --encoding UTF8 --locale C \
    >"$WORK/initdb.log" 2>&1 || { cat "$WORK/initdb.log" >&2; die "initdb failed"; }
  cat >>"$data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = '$PG_SOCKETS'
max_connections = $1
shared_buffers = 256MB
fsync = off
synchronous_commit = off
full_page_writes = off
max_wal_size = 4GB
autovacuum = off
logging_collector = off
CONF
  (cd "$WORK" && exec_as_person setsid "$PGFLEET_PG_BIN/postgres" -D "$data") >"$WORK/postgres.log" 2>&1 </dev/null &
  PG_PID=$!
  remember "$PG_PID" INT # "fast" shutdown: does not wait for clients
  for turn in $(seq 300); do
    if "$PGFLEET_PG_BIN/pg_isready" -q -h "$PG_SOCKETS" -p "$PG_PORT"; then return 0; fi
    kill -0 "$PG_PID" 2>/dev/null || break
    sleep 0.1
  done
  cat "$WORK/postgres.log" >&2
  die "PostgreSQL did not start"
}

# sql [PSQL ARGUMENT...]: psql as the superuser on the throw-away PostgreSQL itself, unaligned, without headings.
sql() {
  PGOPTIONS= "$PGFLEET_PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$PG_SOCKETS" -p "$PG_PORT" -U postgres "$@"
}
