#!/usr/bin/env bash
# Checks that what the documents point at exists: the tests and benchmarks that hold a promise,
# files and functions, commands, and other documents. A promise whose test was renamed away is not
# held by anything.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly DOCUMENTS=(*.md docs/decisions/*.md)
# What every command says of itself.
readonly HELP=crates/pando/tests/cli/snapshots/cli__help__help.snap
# Commands that help does not list: programs start them.
readonly HIDDEN_COMMANDS=' keeper gen '

# Every test: written out below its attribute, or made by a macro from a list of names.
TESTS=$(grep -rhE -A6 '#\[(tokio::)?test\b|^ +[a-z_0-9]+ =( |$)' crates --include='*.rs' |
  sed -nE 's/^.*\bfn ([a-z_0-9]+).*$/\1/p; s/^ +([a-z_0-9]+) =( .*)?$/\1/p')
BENCHMARKS=$(sed -n '/pub const SCENARIOS/,/];/p' crates/pando/src/figures.rs | grep -oE '"[a-z]+"')
readonly TESTS BENCHMARKS

missing=0

complain() {
  printf '%s: %s\n' "$1" "$2" >&2
  missing=$((missing + 1))
}

# Prints a document as one line, so that what is looked for may go over several.
on_one_line() {
  tr '\n' ' ' <"$1" | tr -s ' '
}

# Prints the words of every "(test: one, two)".
named_tests() {
  on_one_line "$1" | grep -oE '\(tests?: [^)]*\)' | sed -E 's/^\(tests?: //; s/\)$//; s/[, ]+/\n/g' || true
}

# Prints the names of every "bench `name`".
named_benchmarks() {
  # The backquotes are the document's, here and below.
  # shellcheck disable=SC2016
  grep -oE 'bench `[a-z]+`' "$1" | tr -d '\140' | cut -d' ' -f2 || true
}

# Prints the files in backquotes, as paths from the root.
named_files() {
  # shellcheck disable=SC2016
  grep -oE '`(crates/)?pando(-[a-z]+)?/[A-Za-z0-9_./-]+`|`(scripts|docs)/[A-Za-z0-9_./-]+`' "$1" |
    tr -d '\140' | sed -E 's,^pando,crates/pando,' || true
}

# Prints "name path" for every "`name` in `path`".
named_functions() {
  # shellcheck disable=SC2016
  on_one_line "$1" | grep -oE '`[a-z_]+` in `pando[A-Za-z0-9_./-]+\.rs`' |
    sed -E 's/`//g; s/ in / crates\//' || true
}

# Prints the words after "pando" in code: commands, and what they are given.
named_commands() {
  # shellcheck disable=SC2016
  grep -oE '(`|\$ )pando [a-z][a-z-]*( [a-z][a-z-]*)?' "$1" | sed -E 's/^.*pando //' || true
}

linked_files() {
  grep -oE '\]\([^):#]+[^)]*\)' "$1" | sed -E 's/^\]\(//; s/[)#].*$//' | grep -v '://' || true
}

# Whether there is such a command; of a group of commands, the second word is one as well.
is_command() {
  local word=$1 second=${2:-}
  [[ $HIDDEN_COMMANDS == *" $word "* ]] && return 0
  grep -qE "^Usage: pando $word( |\$)" "$HELP" || return 1
  grep -qE "^Usage: pando $word \[OPTIONS\] <COMMAND>" "$HELP" || return 0
  [[ -z $second ]] || grep -qE "^Usage: pando $word $second( |\$)" "$HELP"
}

for document in "${DOCUMENTS[@]}"; do
  while read -r name; do
    grep -qxF "$name" <<<"$TESTS" || complain "$document" "there is no test $name"
  done < <(named_tests "$document")
  while read -r name; do
    grep -qxF "\"$name\"" <<<"$BENCHMARKS" ||
      complain "$document" "there is no benchmark $name"
  done < <(named_benchmarks "$document")
  while read -r path; do
    [[ -e $path ]] || complain "$document" "there is no file $path"
  done < <(named_files "$document")
  while read -r name path; do
    grep -qE "fn $name\\b" "$path" 2>/dev/null || complain "$document" "there is no $name in $path"
  done < <(named_functions "$document")
  while read -r word second; do
    is_command "$word" "$second" || complain "$document" "there is no command pando $word $second"
  done < <(named_commands "$document")
  while read -r path; do
    [[ -e $(dirname "$document")/$path ]] || complain "$document" "its link to $path leads nowhere"
  done < <(linked_files "$document")
done

((missing == 0)) || exit 1
echo "every test, benchmark, file, function, command and document that is named exists"
