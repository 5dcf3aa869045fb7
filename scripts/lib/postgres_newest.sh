# PostgreSQL of Debian's newest suite, beside the one that is installed: for what only it can do. Sourced.
#
# It lies in the cache and runs with its own loader and libraries, by way of scripts that have its programs' names, since initdb and pg_ctl
# start others of them.

# Sets and exports PGFLEET_NEWEST_PG_BIN. One named by the caller is kept as it is.
need_newest_postgres() {
  local folder=$CACHE/postgresql-newest bin
  [ -z "${PGFLEET_NEWEST_PG_BIN:-}" ] || return 0
  mkdir -p "$CACHE"
  if ! as_person test -x "$CACHE"; then # a checkout that only root can see into
    folder=/var/tmp/pgfleet-postgresql-newest
  fi
  if [ ! -e "$folder/ready" ]; then
    say "unpacking PostgreSQL from Debian's newest suite into ${folder#"$ROOT/"}"
    rm -rf "$folder"
    "$ROOT/scripts/newer-debian" "$folder" postgresql || die "could not unpack PostgreSQL from Debian's newest suite"
    bin=$(echo "$folder"/usr/lib/postgresql/*/bin)
    wrap_programs "$folder" "$bin" initdb postgres psql pg_ctl
    touch "$folder/ready"
  fi
  PGFLEET_NEWEST_PG_BIN=$(echo "$folder"/usr/lib/postgresql/*/bin)
  export PGFLEET_NEWEST_PG_BIN
}

# wrap_programs FOLDER BIN NAME...: BIN/NAME becomes a script that runs what it was with the loader and libraries in FOLDER.
wrap_programs() {
  local folder=$1 bin=$2 name loader libraries
  shift 2
  loader=$(find "$folder/usr/lib" "$folder/usr/lib64" -name 'ld-linux*.so.*' | head -n 1)
  libraries=$(cd "$folder/usr/lib" && ls -d "$PWD"/*-linux-gnu | head -n 1)
  for name in "$@"; do
    mv "$bin/$name" "$bin/$name.program"
    printf '#!/bin/sh\nexec "%s" --argv0 "%s" --library-path "%s" "%s" "$@"\n' \
      "$loader" "$bin/$name" "$libraries" "$bin/$name.program" >"$bin/$name"
    chmod 755 "$bin/$name"
  done
}
