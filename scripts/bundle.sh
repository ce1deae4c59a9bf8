#!/usr/bin/env bash
# bundle.sh: one archive with everything that a GPU machine without LLVM, CMake or a compiler needs to run, test and time Quern:
# the command line tool, libquern-jit.so with LLVM and MLIR inside, the Python package, kernels, benchmarks, tests, gpu-test.sh.
# It works from any folder: every ELF file finds its libraries relative to itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: bash scripts/bundle.sh [--out FILE] [--python VERSION] [--no-build] [--import-with PYTHON]

Builds the preset `static` in build-static/ and packs build-static/quern-bundle.tar.gz (under 40 MB). Run scripts/setup.sh first: it
installs the packages and makes .venv. On the GPU machine: tar xzf quern-bundle.tar.gz && bash quern-bundle/scripts/gpu-test.sh

  --out FILE            where the archive goes
  --python VERSION      Python of the GPU machine (default 3.12): whose half of nanobind is carried
  --no-build            pack what is built
  --import-with PYTHON  interpreter of that version, with torch, to test the import with (default: found on the PATH, or not tested)
  --help                this text

Environment: QUERN_JOBS sets the number of compile jobs.
TEXT
}

buildDir=build-static out="" pythonVersion=3.12 build=1 importWith=""
while (($#)); do
  case $1 in
    --out) out=${2:?--out needs a file} && shift ;;
    --python) pythonVersion=${2:?--python needs a version such as 3.12} && shift ;;
    --import-with) importWith=${2:?--import-with needs a Python} && shift ;;
    --no-build) build=0 ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
[[ $pythonVersion =~ ^3\.[0-9]+$ ]] || { echo "error: --python $pythonVersion: expected a version such as 3.12" >&2 && exit 2; }
out=$(realpath -m "${out:-$buildDir/quern-bundle.tar.gz}")
tag=cp${pythonVersion/./}
limitBytes=$((40 * 1000 * 1000))
# GoogleTest binaries that mean something on a GPU machine; those with the compiler inside would not fit.
testBinaries=(quern-gpu-tests)
# Those that this configuration has.
builtTests() {
  local name
  # Not grep -q: it would leave ninja with a broken pipe, which pipefail takes for an answer.
  for name in "${testBinaries[@]}"; do ninja -C "$buildDir" -t targets all | grep "^bin/$name:" >/dev/null && echo "$name"; done
  true
}

source scripts/lib.sh
[[ -x .venv/bin/python ]] || die "there is no .venv" "Run: bash scripts/setup.sh"
stage=$PWD/$buildDir/bundle root=$PWD/$buildDir/bundle/quern-bundle

# $ORIGIN of bin/, lib/ and python/quern/.
configure() {
  local rpath='$ORIGIN/../lib:$ORIGIN:$ORIGIN/../../lib'
  cmake --preset static -DQUERN_PYTHON=ON "-DPython_EXECUTABLE=$PWD/.venv/bin/python" "-DCMAKE_BUILD_RPATH=${rpath//:/;}"
}

build() {
  local tests
  mapfile -t tests < <(builtTests)
  NINJA_STATUS='[%f/%t] ' cmake --build "$buildDir" -j "$(jobs)" --target quern quern-jit quern_python "${tests[@]}"
}

# The run-time half of nanobind for the other Python, from its wheel, kept between runs.
fetchBackend() {
  local requirement wheels=$buildDir/wheels
  requirement=$(grep -E '^nanobind-backend==' scripts/requirements.txt)
  if ! compgen -G "$wheels/nanobind_backend-${requirement#*==}-$tag-*.whl" >/dev/null; then
    .venv/bin/python -m pip download --disable-pip-version-check --no-input --progress-bar off --no-deps --only-binary :all: \
      --python-version "$pythonVersion" --implementation cp --abi "$tag" --platform manylinux2014_x86_64 \
      --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 -d "$wheels" "$requirement"
  fi
  .venv/bin/python -m zipfile -e "$wheels"/nanobind_backend-*-"$tag"-*.whl "$root/python"
}

# Libraries of every Linux with a C++ run time; all others are carried. libstdc++ is not: PyTorch's process must have one, the newer.
isSystemLibrary() {
  [[ $1 =~ ^(linux-vdso\.so.*|ld-linux-x86-64\.so\.2|lib(c|m|dl|rt|pthread)\.so\.[0-9]+|libstdc\+\+\.so\.6|libgcc_s\.so\.1)$ ]]
}

elfFiles() { find "$1" -type f -print0 | while IFS= read -r -d '' f; do [[ $(head -c4 "$f" | tr -d '\0') == $'\x7fELF' ]] && echo "$f"; done; }

# "name path" of what the loader finds for a file; path is "not" when it finds nothing.
libraries() { env -i ldd "$1" | sed -nE 's#^\s*(\S+) => (\S+).*#\1 \2#p; s#^\s*(/\S+) \(.*#\1 \1#p' | sed -E 's#^/\S*/##'; }

carryLibraries() {
  local file name path again=1
  while ((again)); do
    again=0
    while read -r file; do
      while read -r name path; do
        isSystemLibrary "$name" || [[ -e $root/lib/$name ]] && continue
        [[ $path == not ]] && { echo "$file needs $name, which is nowhere" && return 1; }
        cp -L "$path" "$root/lib/$name" && chmod 755 "$root/lib/$name" && again=1
        echo "carried $name from $path"
      done < <(libraries "$file")
    done < <(elfFiles "$root")
  done
}

assemble() {
  rm -rf "$stage" && mkdir -p "$root"/{bin,lib,python,scripts,tests}
  local binary file
  for binary in quern $(builtTests); do cp "$buildDir/bin/$binary" "$root/bin/"; done
  cp -L "$buildDir/lib/libquern-jit.so" "$root/lib/"
  mkdir "$root/python/quern"
  cp "$buildDir"/python/quern/*.py "$buildDir"/python/quern/*.pyi "$buildDir"/python/quern/py.typed "$buildDir"/python/quern/_quern*.so "$root/python/quern/"
  ln -s ../../lib/libquern-jit.so "$root/python/quern/libquern-jit.so"
  fetchBackend
  # pytest, for machines that have none: used only there (pure Python).
  mkdir "$root/python/tools"
  for file in pytest _pytest py.py pluggy iniconfig packaging pygments; do cp -r .venv/lib/python3*/site-packages/"$file" "$root/python/tools/"; done
  git ls-files -z kernels benchmarks tests/python tests/pytest.ini scripts/gpu-test.sh scripts/gpu_report.py LICENSE |
    xargs -0 cp --parents -t "$root"
  find "$root/tests/python" -maxdepth 1 -name 'test_*.py' ! -name 'test_gpu_*.py' -delete
  find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
  { git rev-parse --short HEAD && git diff --quiet HEAD -- . || echo dirty; } | paste -sd- >"$root/COMMIT"
  while read -r file; do strip --strip-unneeded "$file"; done < <(elfFiles "$root")
  carryLibraries
  (cd "$root" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
}

pack() {
  mkdir -p "$(dirname "$out")"
  tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -cf - quern-bundle |
    gzip -9n >"$out.part"
  mv "$out.part" "$out"
  local bytes
  bytes=$(stat -c %s "$out")
  echo "$bytes bytes"
  ((bytes < limitBytes)) || { echo "over the limit of $limitBytes bytes" && return 1; }
}

# The archive as another machine sees it: in another folder, without this build's paths, each library from inside or from the system.
verify() {
  local away file name path needed
  away=$(mktemp -d) && trap 'rm -rf "$away"' EXIT
  tar -C "$away" -xzf "$out"
  (cd "$away/quern-bundle" && sha256sum --quiet -c SHA256SUMS)
  while read -r file; do
    # Python's own symbols come from the interpreter; anything else undefined is a library that was not linked.
    if ldd -r "$file" 2>&1 | grep -E 'undefined symbol|not found' | grep -vE 'undefined symbol: _?Py|undefined symbol: nb_'; then
      echo "${file#"$away"/} is not complete" && return 1
    fi
    while read -r name path; do
      if isSystemLibrary "$name" || [[ $(realpath "$path") == "$away"/* ]]; then continue; fi
      echo "${file#"$away"/} finds $name at $path, outside the bundle" && return 1
    done < <(libraries "$file")
  done < <(elfFiles "$away")
  needed=$(elfFiles "$away" | xargs -d '\n' objdump -T 2>/dev/null | grep -oE '\b(GLIBC|GLIBCXX)_[0-9.]+' | sort -Vu)
  echo "needs $(grep GLIBC_ <<<"$needed" | tail -n 1) and $(grep GLIBCXX_ <<<"$needed" | tail -n 1) or later"
  (
    cd / && unset QUERN_JIT_LIBRARY LD_LIBRARY_PATH
    "$away/quern-bundle/bin/quern" --version
    "$away/quern-bundle/bin/quern" compile "$away/quern-bundle/kernels/gpt_oss.qn" --kernel gate_up --emit=llvm >/dev/null
    echo "quern compile works from another folder"
  )
}

# The import under the GPU machine's Python, from an unpacked copy. Its own words end up in the step's line.
verifyImport() {
  local away
  away=$(mktemp -d) && trap 'rm -rf "$away"' EXIT
  tar -C "$away" -xzf "$out"
  (cd / && PYTHONPATH="$away/quern-bundle/python" "$1" "$away/quern-bundle/scripts/gpu_report.py" --check-import "$away" &&
    PYTHONPATH="$away/quern-bundle/python/tools" "$1" -m pytest --version)
}

# A Python of that version with torch: the one given, or one on the PATH.
findPython() {
  local candidate
  for candidate in "$importWith" "python$pythonVersion" python3; do
    [[ -n $candidate ]] && "$candidate" -c "import sys, torch; sys.exit('%d.%d' % sys.version_info[:2] != '$pythonVersion')" 2>/dev/null &&
      { command -v "$candidate" && return; }
  done
  return 1
}

say "Quern: a bundle for GPU machines, from $buildDir"
if ((build)); then
  step "configure (static)" bundle-configure configure
  step "build ($(jobs) jobs)" bundle-build build
fi
step "assemble" bundle-assemble assemble
step "pack" bundle-pack pack
step "verify" bundle-verify verify
if python=$(findPython); then
  step "import under Python $pythonVersion" bundle-import verifyImport "$python"
elif [[ -n $importWith ]]; then
  die "$importWith is no Python $pythonVersion with torch"
else
  note "import under Python $pythonVersion" "not tested: no Python $pythonVersion with torch on the PATH (--import-with names one)"
fi
say "$(tail -n 1 "$logDir/bundle-pack.log"), $(grep -h '^needs' "$logDir/bundle-verify.log"): ${out#"$PWD"/}"
