# Shared by the scripts in this folder: steps with a log, progress and elapsed time, and how many jobs this machine can take.
# Source it after `cd` to the repository's root.

logDir=build/logs
mkdir -p "$logDir"

# One line per step on stdout; details go to the step's log.
say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$1" >&2
  shift
  (($#)) && printf '       %s\n' "$@" >&2
  exit 1
}

# Compile jobs: one per core, but no more than free memory allows (a file that includes MLIR takes up to 1.5 GB).
# QUERN_JOBS overrides it.
jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable:/ { print int($2 / 1572864) }' /proc/meminfo)
  ((memory < 1)) && memory=1
  echo "${QUERN_JOBS:-$((cores < memory ? cores : memory))}"
}

# The last line of a log that says something, shortened: what a long step is doing now. Python's package installer warns about
# local package folders that lack a package; that says nothing about progress.
lastLine() {
  tail -c 4000 "$1" 2>/dev/null | tr '\r' '\n' | grep -vE '^\s*$|^WARNING: Location ' | tail -n 1 |
    tr -cd '[:print:]' | cut -c1-90
}

# step LABEL LOGNAME COMMAND...: runs COMMAND with its output in build/logs/LOGNAME.log; shows progress (rewritten in place on a
# terminal, a line every 20 s elsewhere) and the elapsed time. A failure shows the log's tail and ends the script.
step() {
  local label=$1 log=$logDir/$2.log start=$SECONDS pid status=0 beat=0 i=0 tty=0
  shift 2
  [[ -t 1 ]] && tty=1
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; echo; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((++i % 5 == 0)); then
      if ((tty)); then
        printf '\r\033[K  ....  %-28s %4d s   %s' "$label" "$((SECONDS - start))" "$(lastLine "$log")"
      elif ((SECONDS - start >= beat + 20)); then
        beat=$((SECONDS - start))
        printf '  ....  %-28s %4d s   %s\n' "$label" "$beat" "$(lastLine "$log")"
      fi
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  ((tty)) && printf '\r\033[K'
  if ((status)); then
    printf '  FAIL  %-28s %4d s   exit status %d; the end of %s:\n' "$label" "$((SECONDS - start))" "$status" "$log" >&2
    grep -vE '^WARNING: Location ' "$log" | tail -n 40 | sed 's/^/        /' >&2
    printf 'error: %s failed; the whole log is in %s\n' "$label" "$log" >&2
    exit 1
  fi
  printf '  ok    %-28s %4d s\n' "$label" "$((SECONDS - start))"
}

# note LABEL TEXT: a step that had nothing to do, or only something to say.
note() { printf '  ok    %-28s %6s   %s\n' "$1" '' "$2"; }
