#!/usr/bin/env bash
# Checks that what the documents point at exists: the tests that hold a promise, files, and other
# documents. A promise whose test was renamed away is not held by anything.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly DOCUMENTS=(*.md docs/decisions/*.md)

missing=0

complain() {
  printf '%s: %s\n' "$1" "$2" >&2
  missing=$((missing + 1))
}

# Prints the words of every "(test: one, two)" of a document, which may go over several lines.
named_tests() {
  tr '\n' ' ' <"$1" | grep -oE '\((test|tests): [^)]*\)' | sed -E 's/^\(tests?: //; s/\)$//; s/[, ]+/\n/g' || true
}

# Prints the files in backquotes, as paths from the root.
named_files() {
  # The backquotes are the document's.
  # shellcheck disable=SC2016
  grep -oE '`(crates/)?pando-[a-z]+/[A-Za-z0-9_./-]+`|`(scripts|docs)/[A-Za-z0-9_./-]+`' "$1" |
    tr -d '\140' | sed -E 's,^pando-,crates/pando-,' || true
}

linked_files() {
  grep -oE '\]\([^):#]+[^)]*\)' "$1" | sed -E 's/^\]\(//; s/[)#].*$//' | grep -v '://' || true
}

for document in "${DOCUMENTS[@]}"; do
  while read -r name; do
    # Written out, or made by a macro from a list of names.
    grep -rqE "fn $name\\b|^ +$name = " crates --include='*.rs' ||
      complain "$document" "there is no test $name"
  done < <(named_tests "$document")
  while read -r path; do
    [[ -e $path ]] || complain "$document" "there is no file $path"
  done < <(named_files "$document")
  while read -r path; do
    [[ -e $(dirname "$document")/$path ]] || complain "$document" "its link to $path leads nowhere"
  done < <(linked_files "$document")
done

((missing == 0)) || exit 1
echo "every test, file and document that is named exists"
