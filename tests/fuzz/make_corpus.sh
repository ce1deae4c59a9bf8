#!/bin/sh
# Refreshes corpus/ from the shipped files, the manual's examples and the negative tests: run it when the language changes.
set -eu
cd "$(dirname "$0")/../.."
rm -rf tests/fuzz/corpus
mkdir -p tests/fuzz/corpus
for file in kernels/*.qn tests/error/*.qn; do
  [ "$(wc -c < "$file")" -gt 4096 ] || cp "$file" "tests/fuzz/corpus/$(basename "$file")"
done
awk '/^```qn/ { n++; on = 1; next } /^```/ { on = 0 } on { print > ("tests/fuzz/corpus/manual-" n ".qn") }' compiler/LANGUAGE.md
