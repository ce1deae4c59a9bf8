#!/usr/bin/env bash
# test.sh: sets up what is missing, builds the tests and runs all of them. It goes on after a failure, so that one run shows
# everything, and ends with each runner's own summary line, a table, and one line that counts all tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: bash scripts/test.sh [--quick] [--only NAME]...

  lint      layers, formatting, file lengths, words, links, the code blocks of the READMEs
  unit      GoogleTest: language, formats, routing, threads, oracle, the simulator itself (no LLVM)
  driver    GoogleTest: the CUDA side on a CUDA driver of our own; ptxas and NVRTC, where they are found (no GPU)
  codegen   GoogleTest: schedules, features, GPU primitives and cost model, the split of a kernel for the simulator
  sim       GoogleTest: faults planted in GPU kernels, and a sample of automatic mutants, against the simulator
  jit       GoogleTest: kernels compiled from text and run, on what this CPU has; every shipped kernel through ptxas for sm_90a
  gpu       GoogleTest: every shipped kernel, and the device code around it, as a GPU runs them, on the simulator
  tools     GoogleTest: shapes of models, plans, progress, tables and plots of the command line
  isa       the same kernels on every instruction set (AMX by emulation where needed) and by other schedules
  amx       GoogleTest and ctest: the AMX emulator that lets jit and python test AMX code on any x86-64 CPU
  lit       FileCheck: the dialects, the passes, the command line tool
  sanitize  the unit tests with address and undefined-behaviour sanitizers
  threads   the tests of cache, knobs and thread pool with the thread sanitizer
  fuzz      the front end on its seeded corpus for a minute, with the same sanitizers
  python    pytest: the package, numerics against the oracle, bitsandbytes and transformers, errors

  --quick      without sanitizers, fuzzing and the tests marked slow
  --only NAME  only that runner (may be repeated)
  --help       this text

No runner needs a GPU; what only a GPU can confirm is in scripts/gpu-test.sh.
Environment: QUERN_JOBS sets the number of compile jobs, QUERN_FUZZ_SECONDS the fuzzing time (60).
TEXT
}

quick=0 only=()
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --only) only+=("${2:?--only needs the name of a runner}") && shift ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
runners=(lint unit driver codegen sim jit gpu tools isa amx lit sanitize threads fuzz python)
for name in "${only[@]}"; do
  [[ " ${runners[*]} " == *" $name "* ]] || { echo "error: no runner is called $name" >&2 && usage >&2 && exit 2; }
done
wanted() {
  if ((${#only[@]})); then [[ " ${only[*]} " == *" $1 "* ]]; else ! { ((quick)) && [[ $1 == sanitize || $1 == threads || $1 == fuzz ]]; }; fi
}

begin=$SECONDS
bash scripts/setup.sh
source scripts/lib.sh

say "Building the tests"
NINJA_STATUS='[%f/%t] ' step "tests" test-build cmake --build build -j "$(jobs)" --target quern-tests
if wanted sanitize || wanted fuzz; then
  [[ -e build-sanitize/build.ninja ]] || step "configure (sanitize)" test-sanitize-configure cmake --preset sanitize
  NINJA_STATUS='[%f/%t] ' step "tests (sanitize)" test-sanitize-build cmake --build build-sanitize -j "$(jobs)" \
    --target quern-unit-tests frontend-fuzz
fi
if wanted threads; then
  [[ -e build-threads/build.ninja ]] || step "configure (threads)" test-threads-configure cmake --preset threads
  NINJA_STATUS='[%f/%t] ' step "tests (threads)" test-threads-build cmake --build build-threads -j "$(jobs)" --target quern-thread-tests
fi

# Every runner writes its results as JUnit XML, from which the counts are taken, and its own words to the terminal and a log.
results=$PWD/build/test-results
rm -rf "$results" && mkdir -p "$results"
pytest=(.venv/bin/python -m pytest -q -p no:cacheprovider)
((quick)) && pytest+=(-m "not slow")

run_lint() { "${pytest[@]}" tests/lint --junit-xml "$results/lint.xml"; }
run_unit() { build/bin/quern-unit-tests --gtest_brief=1 --gtest_output="xml:$results/unit.xml"; }
run_jit() { build/bin/quern-jit-tests --gtest_brief=1 --gtest_output="xml:$results/jit.xml"; }
run_driver() { build/bin/quern-driver-tests --gtest_brief=1 --gtest_output="xml:$results/driver.xml"; }
run_gpu() { QUERN_TEST_TARGET=sim build/bin/quern-gpu-tests --gtest_brief=1 --gtest_output="xml:$results/gpu.xml"; }
run_tools() { build/bin/quern-tools-tests --gtest_brief=1 --gtest_output="xml:$results/tools.xml"; }
run_codegen() { build/bin/quern-codegen-tests --gtest_brief=1 --gtest_output="xml:$results/codegen.xml"; }
run_sim() { build/bin/quern-sim-tests --gtest_brief=1 --gtest_output="xml:$results/sim.xml"; }
run_isa() { ctest --test-dir build/tests -R '^quern-jit-' -E '^quern-jit-tests$' --output-on-failure --output-junit "$results/isa.xml"; }
run_amx() { ctest --test-dir build/tests/support/amx_emulator --output-on-failure --output-junit "$results/amx.xml"; }
run_lit() { /usr/lib/llvm-22/bin/lit -sv --no-progress-bar --xunit-xml-output "$results/lit.xml" build/tests/lit; }
run_sanitize() { build-sanitize/bin/quern-unit-tests --gtest_brief=1 --gtest_output="xml:$results/sanitize.xml"; }
run_threads() { build-threads/bin/quern-thread-tests --gtest_brief=1 --gtest_output="xml:$results/threads.xml"; }
run_python() { "${pytest[@]}" tests --ignore tests/lint --ignore tests/lit --junit-xml "$results/python.xml"; }

# Two things: every input of the corpus once (an old failure must not come back), then new inputs made from it. New inputs go to
# a folder of their own: the corpus is only read. An input that ends the run is kept in build/logs. libFuzzer's line per new input is left out.
run_fuzz() { fuzz 2>&1 | sed -E '/^#[0-9]+\s+(NEW|REDUCE|RELOAD|READ|INITED)|^\s+NEW_FUNC|^"|^#+ .*ecommended dictionary/d'; }
fuzz() {
  local fuzz=build-sanitize/bin/frontend-fuzz found=build/fuzz-found seconds=${QUERN_FUZZ_SECONDS:-60}
  local options=(-print_final_stats=1 -timeout=10 -rss_limit_mb=2048 -artifact_prefix=build/logs/)
  mkdir -p "$found"
  "$fuzz" "${options[@]}" -runs=0 tests/fuzz/corpus &&
    "$fuzz" "${options[@]}" -dict=tests/fuzz/qn.dict -max_len=4096 -max_total_time="$seconds" "$found" tests/fuzz/corpus
}

report=()
for name in "${runners[@]}"; do
  if ! wanted "$name"; then
    report+=("$name" - 0)
    continue
  fi
  printf '\n=== %s ===\n' "$name"
  start=$SECONDS status=0
  # Out of reach of `set -e`: the status is reported, and the next runner runs.
  { "run_$name" 2>&1 || echo $? >"$results/$name.status"; } | tee "build/logs/test-$name.log"
  [[ -e $results/$name.status ]] && status=$(<"$results/$name.status")
  report+=("$name" "$status" "$((SECONDS - start))")
done

exec .venv/bin/python scripts/test_report.py "$results" build/logs "$((SECONDS - begin))" "${report[@]}"
