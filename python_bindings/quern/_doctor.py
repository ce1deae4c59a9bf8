"""What Quern finds on this machine. The command line tool looks, in a process of its own, so that nothing it opens stays in this one."""

import json as _json
import os
import subprocess
import sys

from .errors import RuntimeFailure


def tool():
    """The path of the `quern` program: in this package (wheel), or in the build folder that the package lies in."""
    package = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.join(package, "quern"), os.path.normpath(os.path.join(package, "../../bin/quern"))]
    for place in places:
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return place
    raise RuntimeFailure(f"quern: the command line tool is not there; looked at: {', '.join(places)}", place="quern")


def doctor(*, json=False):
    """Prints what Quern finds on this machine (driver, GPU, ptxas, NVRTC, compiler, cache, this Python and its PyTorch), what it will
    use and why, and what to install. CUDA is not initialised, so workers may still be forked afterwards.

    json: return the findings as a dict ("cpu_works", "gpu_works", "gpu_reason", "sections") instead.
    Raises: RuntimeFailure when the command line tool is missing or does not run.
    """
    command = [tool(), "doctor", "--python", sys.executable, *(["--json"] if json else [])]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode not in (0, 1):
        raise RuntimeFailure(f"quern doctor ended with status {result.returncode}: {result.stderr.strip()}", place=command[0])
    if json:
        return _json.loads(result.stdout)
    print(result.stdout, end="")
    return None
