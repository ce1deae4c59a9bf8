"""Console script `quern` of the wheel: starts the command line tool that lies in the package, without importing it (and torch)."""

import importlib.util
import os
import sys


def main():
    folder = importlib.util.find_spec("quern").submodule_search_locations[0]
    tool = os.path.join(folder, "quern")
    os.execv(tool, [tool, *sys.argv[1:]])
