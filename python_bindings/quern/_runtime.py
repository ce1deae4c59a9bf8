"""Counters and threads."""

from typing import NamedTuple

from . import _quern
from .errors import ArgumentTypeError, argument_error


class Stats(NamedTuple):
    """Counters since the process started."""

    compilations: int  # kernels compiled
    memory_hits: int  # calls that found their kernel compiled
    compile_ms: float  # total time spent compiling
    disk_hits: int  # kernels that came compiled from the cache's folder


def stats():
    """Counters since the process started: Stats(compilations, memory_hits, compile_ms, disk_hits)."""
    return Stats(*_quern.stats())


def set_num_threads(count):
    """CPU threads that kernels use; 0 restores the default (torch's OpenMP setting, or QUERN_NUM_THREADS). Results never depend on it."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise argument_error("count", f"found {count!r}, expected an int of at least 0", ArgumentTypeError)
    _quern.set_num_threads(count)
