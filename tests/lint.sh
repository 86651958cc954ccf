#!/usr/bin/env bash
# `make lint`: what a compiler with warnings does not say. Each step runs, even after one has failed;
# the exit status says whether all passed. Needs deploy/setup/setup.sh --lint.
#
#   tests/lint.sh            everything
#   tests/lint.sh common     only files below these folders (clang's build covers all targets anyway)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

clang_tidy=${POMPC_DEPS:-$PWD/.deps}/wheels/clang_tidy/data/bin/clang-tidy
jobs=${JOBS:-$(nproc)}
failed=()
# Tracked files and new ones that are not ignored, below the folders asked for.
files() { git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r f; do
  [ -e "$f" ] && in_scope "$f" && echo "$f"; done; }
scope=("$@")
in_scope() {
  [ ${#scope[@]} -eq 0 ] && return 0
  for s in "${scope[@]}"; do [[ $1 == "${s%/}"/* || $1 == "$s" ]] && return 0; done
  return 1
}

# step NAME COMMAND...: says what runs and, when it fails, shows its output.
step() {
  local name=$1 output
  shift
  printf 'lint: %s... ' "$name"
  if output=$("$@" 2>&1); then
    echo ok
  else
    echo FAILED
    printf '%s\n' "$output" | tail -n 60
    failed+=("$name")
  fi
}

mapfile -t code < <(files '*.h' '*.cc')
mapfile -t units < <(files '*.cc')
mapfile -t scripts < <(files '*.sh' '*.sbatch' .ci/run)
mapfile -t python < <(files '*.py')

format() { [ ${#code[@]} -eq 0 ] || clang-format-15 --dry-run -Werror "${code[@]}"; }

# Time, waiting and randomness come from common/base (Clock, Rng), so that tests repeat.
forbidden_words() {
  local words='sleep_for|sleep_until|absl::SleepFor|absl::Now\(|std::rand\b|\bsrand\(|random_device|absl::BitGen|std::mt19937|\busleep\('
  local outside=() f
  for f in "${code[@]}"; do [[ $f == common/base/* ]] || outside+=("$f"); done
  [ ${#outside[@]} -eq 0 ] || ! grep -nE "$words" "${outside[@]}"
}

shell_syntax() { local s; for s in "${scripts[@]}"; do bash -n "$s" || return 1; done; }
python_syntax() {
  local p
  for p in "${python[@]}"; do
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$p" || return 1
  done
}

clang_build() {
  mkdir -p build
  cmake --preset clang && cmake --build --preset clang -j "$jobs"
}

# Over the units of the build. It reads another clang's precompiled headers no better than none, but
# needs the generated ones.
tidy() {
  cmake --preset tidy && cmake --build --preset tidy -j "$jobs" || return 1
  local listed=() u
  for u in "${units[@]}"; do
    grep -q "\"file\": \"$PWD/$u\"" build/tidy/compile_commands.json && listed+=("$u")
  done
  [ ${#listed[@]} -eq 0 ] ||
    printf '%s\0' "${listed[@]}" | xargs -0 -P "$jobs" -n 4 "$clang_tidy" --quiet -p build/tidy 2>&1 |
      { grep -v '^\[[0-9/]*\] Processing file' || true; }  # What is left is findings.
}

step "format (clang-format-15, see make format)" format
step "forbidden words (time and randomness outside common/base)" forbidden_words
step "shell syntax" shell_syntax
step "python syntax" python_syntax
step "layering (who may include and link what)" python3 tests/layering/layering_test.py
step "clang build with -Wthread-safety" clang_build
step "clang-tidy" tidy

if [ ${#failed[@]} -gt 0 ]; then
  printf 'lint: failed: %s\n' "${failed[@]}"
  exit 1
fi
echo "lint: all passed"
