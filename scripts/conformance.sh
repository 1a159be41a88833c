#!/usr/bin/env bash
# The MCP server, checked by other people's programs: the protocol's conformance suite and its
# Inspector. Installs them (from npm, as this machine's npm is configured) and a Node that runs them,
# pinned by tests/clients/package-lock.json; builds the program that has the suite's fixtures; runs
# the tests that use both. ./test does the same among all other tests.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
# shellcheck source=scripts/clients.sh
. "$ROOT/scripts/clients.sh"

usage() {
  cat <<'END'
usage: scripts/conformance.sh

Checks the MCP server with the protocol's conformance suite and with the Inspector.
END
}

case ${1:-} in
  '') ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && fail "unknown argument: $1" ;;
esac

readonly BUILD_REMEDY="the log's first error says what is wrong"

title "What checks the MCP server"
prepare_clients
export PANDO_BIN="$ROOT/target/debug/pando"
run_stage "pando and the checks" "$BUILD_REMEDY" \
  cargo build --locked -p pando --bins --test real_mcp_clients
title "Checks"
cargo test --locked -p pando --test real_mcp_clients
