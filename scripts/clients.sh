# shellcheck shell=bash
# Other people's programs that check the MCP server, and the program that they check. Sourced after
# lib.sh; BUILD_REMEDY says what helps a build.

# Where tests find them: the directory of the installed packages, and a pando with the conformance
# suite's fixtures, which may serve without a token.
export PANDO_CLIENTS="$ROOT/target/clients"
export PANDO_CONFORMANCE_BIN="$ROOT/target/conformance/pando"

# Installs what tests/clients names, once for each version of its lists. No npm package's own programs
# run while it is installed.
install_clients() {
  local made_of lists=("$ROOT"/tests/clients/package*.json "$ROOT/tests/clients/requirements.txt")
  made_of=$(sha256sum "${lists[@]}")
  if [[ $(cat "$PANDO_CLIENTS/stamp" 2>/dev/null) == "$made_of" ]]; then
    return
  fi
  # The Node that they need is among them; it is a newer one than runs npm.
  rm -rf "$PANDO_CLIENTS" &&
    mkdir -p "$PANDO_CLIENTS" &&
    cp "${lists[@]}" "$PANDO_CLIENTS" &&
    (cd "$PANDO_CLIENTS" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) &&
    /usr/bin/python3 -m venv "$PANDO_CLIENTS/venv" &&
    "$PANDO_CLIENTS/venv/bin/pip" install --quiet --disable-pip-version-check \
      --requirement "$PANDO_CLIENTS/requirements.txt" &&
    printf '%s\n' "$made_of" >"$PANDO_CLIENTS/stamp"
}

# Builds the pando with the fixtures and puts it aside: the next build is without them again.
build_conformance() {
  cargo build --locked -p pando --features conformance &&
    mkdir -p "${PANDO_CONFORMANCE_BIN%/*}" &&
    cp --remove-destination "$ROOT/target/debug/pando" "$PANDO_CONFORMANCE_BIN"
}

prepare_clients() {
  run_stage "the clients that check the MCP server" \
    "the log names the reason; they come from npm and PyPI, as this machine's npm and pip are configured" \
    install_clients
  run_stage "pando with what the conformance suite asks for" "$BUILD_REMEDY" build_conformance
}
