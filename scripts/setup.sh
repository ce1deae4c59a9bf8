#!/usr/bin/env bash
# setup.sh: everything Quern needs, from a bare Debian 12 to build/bin/quern and an importable `quern` in .venv.
# Idempotent: it installs and builds only what is missing, so a second run takes seconds. No GPU, CUDA or driver is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: bash scripts/setup.sh [--static] [--no-python]

Installs Debian packages (scripts/apt-packages.txt) and Python packages (scripts/requirements.txt, into .venv: PyTorch,
ptxas, NVRTC, ...), builds build/bin/quern and links the quern package into .venv. Run it again at any time: it does only
what is missing.

  --static      link LLVM and MLIR statically, into build-static/: for what travels to another machine
  --no-python   only the compiler and the command line tool: no .venv, no Python module
  --help        this text

Environment: QUERN_JOBS sets the number of compile jobs (default: the cores, or less where memory is short).
TEXT
}

preset=release python=1
for argument in "$@"; do
  case $argument in
    --static) preset=static ;;
    --no-python) python=0 ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done
buildDir=build
[[ $preset == static ]] && buildDir=build-static

source scripts/lib.sh
begin=$SECONDS

# Two scripts at once would build in the same folder: the second waits.
exec 9>"$logDir/.lock"
flock -n 9 || { say "another setup of this folder is running; waiting for it" && flock 9; }

checkSystem() {
  [[ $(uname -sm) == "Linux x86_64" ]] || say "warning: Quern is built and tested on Linux x86_64; this is $(uname -sm). Going on."
  local name="an unknown system" id="" version=""
  if [[ -r /etc/os-release ]]; then
    id=$(. /etc/os-release && echo "${ID:-}") version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    name=$(. /etc/os-release && echo "${PRETTY_NAME:-$id}")
  fi
  [[ $id == debian && $version == 12 ]] ||
    say "warning: this script is made for Debian 12; this is $name, where packages may have other names or versions. Going on."
}

isInstalled() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

installPackages() {
  local asRoot=$1
  shift
  export DEBIAN_FRONTEND=noninteractive
  # A failed update is not fatal: a source that is not needed here may be down. The installation below decides.
  $asRoot apt-get update -qq || echo "warning: apt-get update failed"
  $asRoot env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 "$@"
}

systemPackages() {
  local label="system packages" package asRoot="" wanted=() missing=()
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    die "no apt-get here: this script installs packages by Debian's names" \
      "Install the equivalents of scripts/apt-packages.txt by hand, then: cmake --preset $preset && cmake --build --preset $preset"
  mapfile -t wanted < <(grep -vE '^\s*(#|$)' scripts/apt-packages.txt)
  for package in "${wanted[@]}"; do isInstalled "$package" || missing+=("$package"); done
  if ((${#missing[@]} == 0)); then
    note "$label" "all ${#wanted[@]} are installed"
    return
  fi
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "${#missing[@]} Debian packages are missing, and this is neither root nor is there sudo" \
      "As root: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    asRoot=sudo
    sudo -v || die "sudo was refused" "As root: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "        $label: installing ${#missing[@]} of ${#wanted[@]}: ${missing[*]}"
  step "$label" setup-apt installPackages "$asRoot" "${missing[@]}"
}

# A hash of everything a step reads: equal to the recorded one means that there is nothing to do.
hashOf() { cat -- "$@" | sha256sum | cut -d' ' -f1; }

pythonEnvironment() {
  local system stamp=.venv/.quern-stamp want
  system=$(command -v python3) || die "no python3 on the PATH"
  "$system" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Quern needs Python 3.10 or later; $system is $("$system" -V)"
  # A .venv that was moved here or whose Python is gone cannot be repaired: make it anew.
  if [[ -e .venv ]] && ! [[ $(.venv/bin/python -c 'import sys; print(sys.prefix)' 2>/dev/null) -ef .venv ]]; then
    say "        .venv does not belong to this folder or its Python is gone: making it anew"
    rm -rf .venv
  fi
  [[ -x .venv/bin/pip ]] || step "Python environment (.venv)" setup-venv "$system" -m venv .venv
  want=$(hashOf scripts/requirements.txt .venv/pyvenv.cfg)
  if [[ $(cat "$stamp" 2>/dev/null) == "$want" ]]; then
    note "Python packages" "as in scripts/requirements.txt"
    return
  fi
  step "Python packages" setup-pip env PYTHONUNBUFFERED=1 .venv/bin/python -m pip install --disable-pip-version-check \
    --no-input --progress-bar off -r scripts/requirements.txt
  echo "$want" >"$stamp"
}

configure() {
  local stamp=$buildDir/.quern-stamp want options=() fresh=()
  if ((python)); then options=(-DQUERN_PYTHON=ON "-DPython_EXECUTABLE=$PWD/.venv/bin/python"); else options=(-DQUERN_PYTHON=OFF); fi
  want=$(printf '%s\n' "$PWD" "${options[@]}" "$(hashOf CMakePresets.json)" "$(cat .venv/.quern-stamp 2>/dev/null)" | sha256sum)
  if [[ -e $buildDir/build.ninja && $(cat "$stamp" 2>/dev/null) == "$want" ]]; then
    note "configure ($preset)" "unchanged"
    return
  fi
  # A cache from another folder or other tools would be refused or, worse, half used.
  [[ -e $buildDir/CMakeCache.txt ]] && fresh=(--fresh)
  step "configure ($preset)" setup-configure cmake "${fresh[@]}" --preset "$preset" "${options[@]}"
  echo "$want" >"$stamp"
}

build() {
  NINJA_STATUS='[%f/%t] ' step "build ($(jobs) jobs)" setup-build cmake --build "$buildDir" -j "$(jobs)"
}

# The importable package is put together by CMake in BUILD/python; one line in .venv's site-packages makes it visible.
linkPackage() {
  local site
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  if [[ $(cat "$site/quern.pth" 2>/dev/null) != "$PWD/$buildDir/python" ]]; then echo "$PWD/$buildDir/python" >"$site/quern.pth"; fi
  step "import quern" setup-import .venv/bin/python -c 'import quern; print(quern.__version__, quern.__file__)'
}

say "Quern: setting up in $PWD"
checkSystem
systemPackages
if ((python)); then pythonEnvironment; fi
configure
build
step "quern --version" setup-version "$buildDir/bin/quern" --version
if ((python)); then linkPackage; fi
say "Done in $((SECONDS - begin)) s: $buildDir/bin/quern$( ((python)) && echo ', and `import quern` in .venv/bin/python')"
