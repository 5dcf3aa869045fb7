# Python with the PostgreSQL drivers that the tests speak through, in a folder of the cache. Sourced.

PYTHON_DRIVERS=('psycopg[binary]' asyncpg)

# Sets and exports PGFLEET_PYTHON. One named by the caller is kept as it is.
need_python_drivers() {
  local folder=$CACHE/python
  [ -z "${PGFLEET_PYTHON:-}" ] || return 0
  python3 -c 'import venv, ensurepip' 2>/dev/null || need_packages python3 python3-venv
  if [ "$(cat "$folder/drivers" 2>/dev/null)" != "${PYTHON_DRIVERS[*]}" ]; then
    say "installing ${PYTHON_DRIVERS[*]} into ${folder#"$ROOT/"}"
    rm -rf "$folder"
    python3 -m venv "$folder" || die "python3 could not make a virtual environment"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "${PYTHON_DRIVERS[@]}" \
      || die "pip could not install ${PYTHON_DRIVERS[*]}"
    echo "${PYTHON_DRIVERS[*]}" >"$folder/drivers"
  fi
  export PGFLEET_PYTHON=$folder/bin/python
}
