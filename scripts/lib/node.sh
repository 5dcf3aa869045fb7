# Node.js with node-postgres and what reads cursors and COPY through it, in a folder of the cache. Sourced.

NODE_DRIVERS=(pg@8 pg-cursor@2 pg-copy-streams@7)

# Sets and exports PGFLEET_NODE_PATH. One named by the caller is kept as it is.
need_node_drivers() {
  local folder=$CACHE/node
  command -v node >/dev/null || need_packages nodejs
  [ -z "${PGFLEET_NODE_PATH:-}" ] || return 0
  if [ "$(cat "$folder/drivers" 2>/dev/null)" != "${NODE_DRIVERS[*]}" ]; then
    command -v npm >/dev/null || need_packages npm
    say "installing ${NODE_DRIVERS[*]} into ${folder#"$ROOT/"}"
    rm -rf "$folder"
    mkdir -p "$folder"
    npm install --silent --no-audit --no-fund --no-package-lock --prefix "$folder" "${NODE_DRIVERS[@]}" \
      || die "npm could not install ${NODE_DRIVERS[*]}"
    echo "${NODE_DRIVERS[*]}" >"$folder/drivers"
  fi
  export PGFLEET_NODE_PATH=$folder/node_modules
}
