#!/usr/bin/env bash
# gpu-test.sh: everything that only a GPU can confirm, in one command: numerics, compute-sanitizer, the benchmark. Runs from an unpacked
# bundle (scripts/bundle.sh) or from a built tree, and needs a CUDA GPU and a Python with torch; no LLVM, no compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: bash scripts/gpu-test.sh [--only NAME]... [--quick] [--out DIR] [--python PYTHON]

  numerics   GoogleTest on the GPU: the tests that pass on the simulator, with target cuda, one process per core
  python     pytest: kernels on CUDA tensors against the oracle
  memcheck   compute-sanitizer memcheck on a small subset
  racecheck  compute-sanitizer racecheck on the device code of that subset; hazards it reports in the matmul kernels are counted
             apart, since it does not follow their bulk copies (runtime/sim/README.md)
  bench      benchmarks/gpu_grouped.py

  --only NAME      only that part (may be repeated); `sanitizer` is memcheck and racecheck
  --quick          the benchmark's --quick, a third of the sanitizers' tests, no slow pytest
  --filter FILTER  GoogleTest filter of numerics (default all)
  --out DIR        logs, JUnit XML and the benchmark's JSON (default gpu-results)
  --python PYTHON  default: .venv/bin/python if there, else python3
  --help           this text

It goes on after a failure, ends with one line per part, and exits with 1 when a part failed, 2 when nothing can run here.
Environment: QUERN_BENCH_ARGUMENTS are given to the benchmark, QUERN_SANITIZER_FILTER is the GoogleTest filter of both sanitizers,
QUERN_JOBS the number of numerics' processes.
TEXT
}

parts=(numerics python memcheck racecheck bench) only=() quick=0 filter='*' out=gpu-results python=python3
[[ -x .venv/bin/python ]] && python=$PWD/.venv/bin/python
while (($#)); do
  case $1 in
    --only) only+=("${2:?--only needs the name of a part}") && shift ;;
    --quick) quick=1 ;;
    --filter) filter=${2:?--filter needs a GoogleTest filter} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --python) python=${2:?--python needs an interpreter} && shift ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
for name in "${only[@]}"; do
  [[ " ${parts[*]} sanitizer " == *" $name "* ]] || { echo "error: no part is called $name" >&2 && usage >&2 && exit 2; }
done
wanted() {
  ((${#only[@]} == 0)) || [[ " ${only[*]} " == *" $1 "* ]] || { [[ $1 == *check ]] && [[ " ${only[*]} " == *" sanitizer "* ]]; }
}

# A bundle has bin/ beside scripts/; a tree has build/bin.
root=$PWD built=$PWD/build
if [[ -e COMMIT && -x bin/quern ]]; then built=$PWD; fi
tests=$built/bin/quern-gpu-tests
mkdir -p "$out" && out=$(realpath "$out")
export PYTHONPATH="$built/python${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1

fail() { echo "error: $1" >&2 && exit 2; }
[[ -x $built/bin/quern ]] || fail "nothing is built here: unpack a bundle (scripts/bundle.sh) or run scripts/setup.sh"
command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q . || fail "no NVIDIA GPU: nvidia-smi lists none"
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null || fail "$python has no torch that sees a GPU (--python names another)"
# Tests skip what they cannot reach; here that would look like success.
problem=$("$python" -c 'import quern; print(quern.device_problem("cuda") or "")' 2>&1) || fail "quern cannot be imported by $python: $(tail -n 1 <<<"$problem")"
[[ -z $problem ]] || fail "quern cannot use the GPU: $problem"
"$python" -c 'import pytest' 2>/dev/null || export PYTHONPATH="$PYTHONPATH:$built/python/tools"

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader
echo "commit $(cat COMMIT 2>/dev/null || git rev-parse --short HEAD), $("$python" -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)')"
"$built/bin/quern" doctor 2>/dev/null || true

# Exit status 77: the part cannot run here; its last line says why.
leaveOut() { echo "left out: $1" && exit 77; }

# The tests that a GoogleTest filter takes; fails, with the pattern, when one of its positive patterns takes none: a renamed test
# must not make a part pass that checks nothing.
listTests() {
  local pattern patterns list
  IFS=: read -ra patterns <<<"${1%%-*}"
  for pattern in "${patterns[@]}"; do
    list=$("$tests" --gtest_list_tests --gtest_filter="$pattern") || return 1
    grep -q '^  ' <<<"$list" || { echo "error: no test is called $pattern" && return 1; }
  done
  "$tests" --gtest_list_tests --gtest_filter="$1" | awk '/^[^ ]/ { suite = $1 } /^  / { print suite $1 }'
}

# Most of the time goes to compiling kernels on the CPU, so the tests run in as many processes as there are cores. Each shard has a log;
# failures are shown, then one line for all, like GoogleTest's own.
run_numerics() {
  [[ -x $tests ]] || leaveOut "${tests#"$root"/} is not built"
  local list count shards shard failed=0 logs=$out/numerics
  list=$(listTests "$filter") || { echo "$list" && return 1; }
  count=$(wc -l <<<"$list") shards=${QUERN_JOBS:-$(nproc)}
  ((shards <= count)) || shards=$count
  rm -rf "$logs" "$out"/numerics*.xml && mkdir -p "$logs"
  local pids=()
  for ((shard = 0; shard < shards; shard++)); do
    QUERN_TEST_TARGET=cuda GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$tests" --gtest_brief=1 --gtest_filter="$filter" \
      --gtest_output="xml:$out/numerics.$shard.xml" >"$logs/$shard.log" 2>&1 &
    pids+=($!)
  done
  for ((shard = 0; shard < shards; shard++)); do
    local status=0
    wait "${pids[$shard]}" || status=$?
    ((status == 0)) && continue
    failed=1
    echo "--- shard $shard of $shards: exit status $status" && tail -n 60 "$logs/$shard.log"
  done
  sumOf() { cat "$logs"/*.log | sed -nE "s/^\[  $1 +\] ([0-9]+) tests?\.?$/\1/p" | awk '{ n += $1 } END { print n + 0 }'; }
  local passed skipped
  passed=$(sumOf PASSED) skipped=$(sumOf SKIPPED)
  ((skipped == 0)) || echo "[  SKIPPED ] $skipped tests."
  if ((failed)); then
    echo "[  FAILED  ] $((count - passed - skipped)) tests of $count failed or did not run, in $shards shards." && return 1
  fi
  # A shard that ran less than its share says so nowhere else.
  ((passed + skipped == count)) || { echo "[  FAILED  ] $((count - passed - skipped)) tests of $count did not run." && return 1; }
  echo "[  PASSED  ] $passed tests, in $shards shards."
}

run_python() {
  local options=()
  ((quick)) && options=(-m "not slow")
  QUERN_TEST_TARGET=cuda "$python" -m pytest -q -p no:cacheprovider -c tests/pytest.ini --rootdir tests "${options[@]}" tests/python/test_gpu_*.py --junit-xml "$out/python.xml"
}

# One of each kind: every kernel on ragged rows, edge strips, dense rows, the sort, re-tiling, the combine.
deviceCode=GpuRouting.SentinelsAndEmptyExperts:GpuRouting.Zipf:GpuPacking.CodesThereAndBack:GpuPacking.DecodesEveryShape
deviceCode+=:GpuRows.CombineAddsInAscendingRowOrder
kernels=GpuKernels.RaggedRoutings:GpuKernels.EdgeShapes:GpuKernels.DenseRows:GpuKernels.SplitOfK
if ((quick)); then deviceCode=GpuRouting.Zipf:GpuPacking.CodesThereAndBack kernels=GpuKernels.DenseRows; fi

# sanitize TOOL FILTER LOG
sanitize() {
  local sanitizer list
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || leaveOut "compute-sanitizer is not on the PATH"
  [[ -x $tests ]] || leaveOut "${tests#"$root"/} is not built"
  list=$(listTests "$2") || { echo "$list" && return 1; }
  echo "$1 on $(wc -l <<<"$list") tests: $(tr '\n' ' ' <<<"$list")"
  # Small shapes only: a checked kernel is hundreds of times slower.
  local status=0
  QUERN_TEST_TARGET=cuda "$sanitizer" --tool "$1" --error-exitcode 9 --print-limit 20 --log-file "$3" \
    "$tests" --gtest_brief=1 --gtest_filter="$2" || status=$?
  # Without this line the tool did not come to its end, whatever the tests said.
  grep -a 'SUMMARY' "$3" | tail -n 1 || { echo "error: $1 wrote no summary to $3" && return 1; }
  return "$status"
}
run_memcheck() { sanitize memcheck "${QUERN_SANITIZER_FILTER:-$deviceCode:$kernels}" "$out/memcheck.txt"; }
run_racecheck() {
  if [[ -n ${QUERN_SANITIZER_FILTER:-} ]]; then
    sanitize racecheck "$QUERN_SANITIZER_FILTER" "$out/racecheck.txt"
    return
  fi
  # Exit status 9: hazards. A wrong result, or a tool that did not run, is an error here too.
  local status=0
  sanitize racecheck "$kernels" "$out/racecheck-kernels.txt" | sed 's/^=* *\(.*SUMMARY\)/matmul kernels (bulk copies are not followed): \1/' || status=$?
  ((status == 0 || status == 9)) || return "$status"
  sanitize racecheck "$deviceCode" "$out/racecheck.txt"
}

run_bench() {
  local options=(--json "$out/bench.json")
  ((quick)) && options+=(--quick)
  # shellcheck disable=SC2086  # words on purpose
  "$python" benchmarks/gpu_grouped.py "${options[@]}" ${QUERN_BENCH_ARGUMENTS:-}
}

report=()
for name in "${parts[@]}"; do
  if ! wanted "$name"; then
    report+=("$name" - 0)
    continue
  fi
  printf '\n=== %s ===\n' "$name"
  start=$SECONDS status=0
  # In a subshell and out of reach of `set -e`: the status is reported, and the next part runs.
  { (run_"$name") 2>&1 || echo $? >"$out/$name.status"; } | tee "$out/$name.log"
  if [[ -e $out/$name.status ]]; then status=$(<"$out/$name.status") && rm "$out/$name.status"; fi
  report+=("$name" "$status" "$((SECONDS - start))")
done
exec "$python" scripts/gpu_report.py "$out" "${report[@]}"
