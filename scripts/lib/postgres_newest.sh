# PostgreSQL of Debian's newest suite, beside the one that is installed: for what only it can do. Sourced.
#
# It lies in the cache and runs with its own loader and libraries, by way of scripts that have its programs' names, since initdb and pg_ctl
# start others of them.

# Sets and exports PGFLEET_NEWEST_PG_BIN. One named by the caller is kept as it is. The newest suite changes daily, and at times one of its
# packages cannot be installed: that is no reason to run no test at all.
need_newest_postgres() {
  local folder=$CACHE/postgresql-newest
  [ -z "${PGFLEET_NEWEST_PG_BIN:-}" ] || return 0
  mkdir -p "$CACHE"
  if ! as_person test -x "$CACHE"; then # a checkout that only root can see into
    folder=/var/tmp/pgfleet-postgresql-newest
  fi
  if [ ! -e "$folder/ready" ]; then
    say "unpacking PostgreSQL from Debian's newest suite into ${folder#"$ROOT/"}"
    if ! unpack_newest_postgres "$folder"; then
      rm -rf "$folder"
      say "warning: no PostgreSQL from Debian's newest suite; the tests that need it will fail, the others run"
      return 0
    fi
  fi
  PGFLEET_NEWEST_PG_BIN=$(echo "$folder"/usr/lib/postgresql/*/bin)
  export PGFLEET_NEWEST_PG_BIN
}

# unpack_newest_postgres FOLDER: false if it cannot be had.
unpack_newest_postgres() {
  local folder=$1 bin
  rm -rf "$folder"
  "$ROOT/scripts/newer-debian" "$folder" postgresql || return 1
  bin=$(echo "$folder"/usr/lib/postgresql/*/bin)
  [ -x "$bin/initdb" ] || return 1
  wrap_programs "$folder" "$bin" initdb postgres psql pg_ctl || return 1
  touch "$folder/ready"
}

# wrap_programs FOLDER BIN NAME...: BIN/NAME becomes a script that runs what it was with the loader and libraries in FOLDER.
wrap_programs() {
  local folder=$1 bin=$2 name loader libraries
  shift 2
  loader=$(find "$folder/usr/lib" "$folder/usr/lib64" -name 'ld-linux*.so.*' | head -n 1)
  libraries=$(cd "$folder/usr/lib" && ls -d "$PWD"/*-linux-gnu | head -n 1)
  for name in "$@"; do
    mv "$bin/$name" "$bin/$name.program" || return 1
    printf '#!/bin/sh\nexec "%s" --argv0 "%s" --library-path "%s" "%s" "$@"\n' \
      "$loader" "$bin/$name" "$libraries" "$bin/$name.program" >"$bin/$name"
    chmod 755 "$bin/$name"
  done
}
