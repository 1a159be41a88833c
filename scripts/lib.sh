# shellcheck shell=bash
# What ./quickstart and ./test share: how they talk, how they run and time a stage, and how the two
# programs are built. Sourced, with `set -euo pipefail` in force and ROOT set to the checkout.

readonly LOG_DIR="$ROOT/target/setup-logs"
readonly GUEST_TARGET=x86_64-unknown-linux-gnu
# shellcheck disable=SC2034 # used by the scripts that source this
readonly GUEST_PROGRAM="$ROOT/target/$GUEST_TARGET/guest/pando-guest"

# Colours and the moving line are for a terminal only.
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  LIVELY=yes
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  LIVELY=''
  BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
title() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
good() { printf '  %s✓%s %s\n' "$GREEN" "$PLAIN" "$*"; }
bad() { printf '  %s✗ %s%s\n' "$RED" "$*" "$PLAIN"; }
note() { printf '  %s•%s %s\n' "$YELLOW" "$PLAIN" "$*"; }

# Ends the script: what failed, then what to do about it, one line each. Indented lines, such as
# commands to type, are shown as they are.
fail() {
  local what=$1
  shift
  {
    printf '\n%s✗ %s%s\n' "$RED" "$what" "$PLAIN"
    ((${#} == 0)) || printf '%s\n' "$@" | sed '/^  /!s/^/  → /'
  } >&2
  exit 1
}

# Asks for a yes. ANSWER is `yes` (never ask), `ask`, or `none` (nobody is there to answer).
confirm() {
  local reply
  case $ANSWER in
    yes) return 0 ;;
    none) return 1 ;;
  esac
  printf '%s [Y/n] ' "$1"
  read -r reply || return 1
  [[ -z $reply || $reply =~ ^[Yy] ]]
}

now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  printf '%s' "${now%???}"
}

# Prints a number of milliseconds as a person would say it.
spoken() {
  local ms=$1
  if ((ms < 1000)); then
    printf '%d ms' "$ms"
  elif ((ms < 60000)); then
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
  else
    printf '%d min %02d s' $((ms / 60000)) $((ms / 1000 % 60))
  fi
}

# Shows on one moving line how long a process has run and the last line that it wrote.
watch_stage() {
  local pid=$1 text=$2 log=$3 begun=$4 last width
  width=$(($(tput cols 2>/dev/null || echo 80) - ${#text} - 20))
  ((width > 10)) || width=10
  while kill -0 "$pid" 2>/dev/null; do
    last=$(tail -c 400 "$log" 2>/dev/null | tr '\r' '\n' | tr -d '\000-\011\013-\037' | tail -n 1)
    printf '\r\e[K  … %s %s%s  %s%s' \
      "$text" "$DIM" "$(spoken $(($(now_ms) - begun)))" "${last:0:width}" "$PLAIN"
    sleep 0.2
  done
  printf '\r\e[K'
}

# Runs one stage: `run_stage TEXT REMEDY COMMAND…`. Its output goes to a log, of which the end is
# shown if it fails.
run_stage() {
  local text=$1 remedy=$2 log begun pid status=0
  shift 2
  mkdir -p "$LOG_DIR"
  log="$LOG_DIR/$(tr -cs 'A-Za-z0-9' '-' <<<"${text,,}" | sed 's/^-//; s/-$//').log"
  begun=$(now_ms)
  if [[ $LIVELY ]]; then
    # A group of its own: in the background of a script, Ctrl-C would not reach it.
    set -m
    "$@" </dev/null >"$log" 2>&1 &
    pid=$!
    set +m
    trap 'kill -TERM -- "-$pid"; exit 130' INT TERM
    watch_stage "$pid" "$text" "$log" "$begun"
    wait "$pid" || status=$?
    trap - INT TERM
  else
    say "  … $text"
    "$@" </dev/null >"$log" 2>&1 || status=$?
  fi
  if ((status != 0)); then
    tail -n 30 "$log" | sed 's/^/    /' >&2
    fail "$text: failed with status $status after $(spoken $(($(now_ms) - begun)))" \
      "$remedy" "the whole log: $log"
  fi
  good "$text $DIM($(spoken $(($(now_ms) - begun))))$PLAIN"
}

# Passes the runner's output on, but keeps its closing summary back in the file $1: what follows the
# tests here is said before it, so that the summary is the last thing on the screen.
hold_summary() {
  local line keeping='' kept=()
  while IFS= read -r line; do
    if [[ $line =~ ^\ +(Running|Doc-tests)\  ]]; then
      # A further test program starts: what was kept was not the end.
      ((${#kept[@]} == 0)) || printf '%s\n' "${kept[@]}"
      kept=() keeping=''
    elif [[ $line =~ ^\ +Summary\ \[ || $line == 'test result: '* ]]; then
      ((${#kept[@]} == 0)) || printf '%s\n' "${kept[@]}"
      kept=() keeping=yes
    fi
    if [[ $keeping ]]; then
      kept+=("$line")
    else
      printf '%s\n' "$line"
    fi
  done
  ((${#kept[@]} == 0)) || printf '%s\n' "${kept[@]}" >"$1"
}

build_guest() {
  # Static, so that it runs in any image. The target is named so that the flags reach this program
  # only and not the build scripts and macros that run here.
  RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --locked -p pando-guest --profile guest --target "$GUEST_TARGET"
}
