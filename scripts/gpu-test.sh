#!/usr/bin/env bash
# gpu-test.sh: everything that only a GPU can confirm, in one command: numerics, compute-sanitizer, the benchmark. Runs from an unpacked
# bundle (scripts/bundle.sh) or from a built tree, and needs a CUDA GPU and a Python with torch; no LLVM, no compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: bash scripts/gpu-test.sh [--only NAME]... [--quick] [--out DIR] [--python PYTHON]

  numerics   GoogleTest on the GPU: the tests that pass on the simulator, with target cuda
  python     pytest: kernels on CUDA tensors against the oracle
  memcheck   compute-sanitizer memcheck on a small subset
  racecheck  compute-sanitizer racecheck on a small subset
  bench      benchmarks/gpu_grouped.py

  --only NAME      only that part (may be repeated); `sanitizer` is memcheck and racecheck
  --quick          the benchmark's --quick
  --filter FILTER  GoogleTest filter of numerics (default all)
  --out DIR        logs, JUnit XML and the benchmark's JSON (default gpu-results)
  --python PYTHON  default: .venv/bin/python if there, else python3
  --help           this text

It goes on after a failure, ends with one line per part, and exits with 1 when a part failed, 2 when nothing can run here.
Environment: QUERN_BENCH_ARGUMENTS are given to the benchmark, QUERN_SANITIZER_FILTER is the GoogleTest filter of both sanitizers.
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

run_numerics() {
  [[ -x $tests ]] || leaveOut "${tests#"$root"/} is not built"
  QUERN_TEST_TARGET=cuda "$tests" --gtest_brief=1 --gtest_filter="$filter" --gtest_output="xml:$out/numerics.xml"
}

run_python() {
  QUERN_TEST_TARGET=cuda "$python" -m pytest -q -p no:cacheprovider -c tests/pytest.ini --rootdir tests tests/python/test_gpu_*.py --junit-xml "$out/python.xml"
}

# One of each kind: every kernel on ragged rows, edge strips, dense rows, the sort, re-tiling, the combine.
sanitizerFilter=GpuKernels.RaggedRoutings:GpuKernels.EdgeShapes:GpuKernels.DenseRows:GpuRouting.SentinelsAndEmptyExperts
sanitizerFilter+=:GpuRouting.Zipf:GpuPacking.CodesThereAndBack:GpuPacking.DecodesEveryShape:GpuRows.CombineAddsInAscendingRowOrder

sanitize() {
  local tool=$1 sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || leaveOut "compute-sanitizer is not on the PATH"
  [[ -x $tests ]] || leaveOut "${tests#"$root"/} is not built"
  # Small shapes only: a checked kernel is hundreds of times slower.
  QUERN_TEST_TARGET=cuda "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 --log-file "$out/$tool.txt" \
    "$tests" --gtest_brief=1 --gtest_filter="${QUERN_SANITIZER_FILTER:-$sanitizerFilter}" && echo "$(grep -a 'SUMMARY' "$out/$tool.txt" | tail -n 1)"
}
run_memcheck() { sanitize memcheck; }
run_racecheck() { sanitize racecheck; }

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
