#!/usr/bin/env bash
# demo.sh: sets up what is missing, then runs a full-size gpt-oss expert layer from bitsandbytes weights on this machine.
# Options are the demo's own: bash scripts/demo.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m quern.demo "$@"
