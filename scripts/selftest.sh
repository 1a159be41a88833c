#!/usr/bin/env bash
# Tests of what the scripts work out by themselves; installs and changes nothing.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/pando-selftest.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
APT_DIR="$WORK/apt"
mkdir -p "$APT_DIR/sources.list.d"
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
# shellcheck source=scripts/needs.sh
. "$ROOT/scripts/needs.sh"
# shellcheck source=scripts/leaks.sh
. "$ROOT/scripts/leaks.sh"

failures=0

expect() {
  local what=$1 wanted=$2 got=$3
  [[ $got == "$wanted" ]] && return 0
  printf 'FAILED %s\n--- wanted\n%s\n--- got\n%s\n' "$what" "$wanted" "$got" >&2
  failures=$((failures + 1))
}

backports_of() {
  rm -f "$APT_DIR"/sources.list "$APT_DIR"/sources.list.d/*
  cat >"$APT_DIR/$1"
  sources_for_suite bookworm bookworm-backports
}

expect "a stanza keeps its mirror, key and options" \
  "Types: deb
Suites: bookworm-backports
URIs: http://mirror.test/debian
Components: main
 contrib
Signed-By: /usr/share/keyrings/test.gpg" \
  "$(backports_of sources.list.d/debian.sources <<'END'
# A comment
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
# inside
 contrib
Signed-By: /usr/share/keyrings/test.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
END
)"

expect "a key inside a stanza is copied with it" \
  "Types: deb
Suites: bookworm-backports
URIs: mirror+file:/etc/apt/mirrors/debian.list
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz" \
  "$(backports_of sources.list.d/debian.sources <<'END'
Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz
END
)"

expect "a one-line source is read as well" \
  "Types: deb
URIs: http://mirror.test/debian
Suites: bookworm-backports
Components: main contrib
Architectures: amd64
Signed-By: /k.gpg" \
  "$(backports_of sources.list <<'END'
# deb http://old.test/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb-src http://mirror.test/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # ours
deb http://mirror.test/debian bookworm-updates main
END
)"

expect "disabled and source-only stanzas do not count" "" \
  "$(backports_of sources.list.d/debian.sources <<'END'
Types: deb
Enabled: no
URIs: http://mirror.test/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.test/debian
Suites: bookworm
Components: main
END
)"

expect "versions are compared as numbers" "yes no yes no" \
  "$(for pair in "10.0.2 8.2" "7.2.9 8.2" "8.2 8.2" "1.100 1.101"; do
    # shellcheck disable=SC2086 # two words
    at_least $pair && echo yes || echo no
  done | xargs)"

expect "times are spoken" "850 ms|12.3 s|3 min 05 s" "$(spoken 850)|$(spoken 12345)|$(spoken 185000)"

expect "only the last summary is held back" "before
test result: ok. 1 passed
   Doc-tests b
+
test result: ok. 2 passed" \
  "$(printf '%s\n' before 'test result: ok. 1 passed' '   Doc-tests b' 'test result: ok. 2 passed' |
    hold_summary "$WORK/held" && echo + && cat "$WORK/held")"

make_scratch
expect "a run that leaves nothing is clean" "clean" "$(in_test_run true && check_nothing_left && echo clean)"
in_test_run mktemp --suffix .left >/dev/null
expect "a file that is left is found" "1" "$(check_files | grep -c '\.left$')"
remove_scratch
in_test_run sleep 30 &
deadline=$((SECONDS + 10))
until [[ $(marked_processes) ]] || ((SECONDS > deadline)); do :; done
left=$(marked_processes)
expect "a process that is left is found" "sleep" "$(cat "/proc/${left:-0}/comm" 2>&1)"
[[ -z $left ]] || kill "$left"
wait

((failures == 0)) || exit 1
echo "all is well"
