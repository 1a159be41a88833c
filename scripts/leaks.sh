# shellcheck shell=bash
# Whether a test run left the machine as it was. Sourced after lib.sh.
#
# Every process of the run inherits RUN_MARK in its environment, and keeps its files below one
# scratch directory, so that what is left over is told from what others do on the machine meanwhile.

# Environment variable that all processes of the run have.
readonly RUN_MARK="RUN_BY_PANDO_TEST=$$.$EPOCHREALTIME"
# How long a process that was told to end may take.
readonly END_WAIT_MS=10000

SCRATCH=''

make_scratch() {
  # Short, because socket paths may have 107 bytes, and searchable, because images are assembled in
  # a user namespace without root.
  SCRATCH=$(mktemp -d /tmp/pando-test.XXXXXX)
  chmod 0711 "$SCRATCH"
  mkdir -m 0711 "$SCRATCH/tmp"
  mkdir -m 0700 "$SCRATCH/run" "$SCRATCH/home"
}

# Ends and removes whatever the run has left; for a run that was interrupted.
remove_scratch() {
  local pid
  [[ $SCRATCH ]] || return 0
  for pid in $(marked_processes); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  rm -rf "$SCRATCH"
}

# Runs a command as part of the test run: marked, its files in the scratch directory and never in the
# caller's own home, nobody to talk to.
in_test_run() {
  env -u PANDO_HOME -u PANDO_SOCKET "$RUN_MARK" TMPDIR="$SCRATCH/tmp" XDG_RUNTIME_DIR="$SCRATCH/run" \
    XDG_DATA_HOME="$SCRATCH/home" XDG_CONFIG_HOME="$SCRATCH/home" XDG_STATE_HOME="$SCRATCH/home" \
    "$@" </dev/null
}

# Prints the process ids of the run that are alive.
marked_processes() {
  # Processes end meanwhile, and others' environments cannot be read: neither is a failure.
  grep -lszxF -- "$RUN_MARK" /proc/[0-9]*/environ 2>/dev/null | tr -cd '0-9\n' || true
}

# Prints the listening addresses of a process's sockets: TCP, UDP and unix.
listening_sockets() {
  local pid=$1
  {
    find "/proc/$pid/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -cd '0-9\n'
    echo --
    cat "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" "/proc/$pid/net/unix" 2>/dev/null
  } | awk '
    $0 == "--" { table = 1; next }
    !table { own[$1] = 1; next }
    # In the TCP tables state 0A listens; in the unix table flag 10000 does.
    $4 == "0A" && $10 in own { print "tcp " $2 }
    $4 == "00010000" && $7 in own { print "unix " $8 }'
}

# Ends what the run left alive, and says what it was. Fails if there was anything.
check_processes() {
  local left pid deadline
  deadline=$(($(now_ms) + END_WAIT_MS))
  while mapfile -t left < <(marked_processes) && ((${#left[@]} > 0)); do
    (($(now_ms) < deadline)) || break
    sleep 0.2
  done
  ((${#left[@]} > 0)) || return 0
  printf '%sleft running by the tests:%s\n' "$RED" "$PLAIN"
  for pid in "${left[@]}"; do
    printf '  %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    listening_sockets "$pid" | sed 's/^/    listens on /'
    kill -KILL "$pid" 2>/dev/null || true
  done
  return 1
}

# Says what files the run left. Fails if there are any.
check_files() {
  local left
  left=$(find "$SCRATCH" -mindepth 2 -maxdepth 4 -printf '  %P\n' | head -n 40)
  [[ $left ]] || return 0
  printf '%sleft behind by the tests in %s:%s\n%s\n' "$RED" "$SCRATCH" "$PLAIN" "$left"
  return 1
}

check_nothing_left() {
  local clean=0
  check_processes || clean=1
  check_files || clean=1
  return "$clean"
}
