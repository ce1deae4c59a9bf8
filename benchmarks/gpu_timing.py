"""How the GPU benchmark takes times, and what a figure must carry with it.

Protocol: every sample is one call between two CUDA events, right after a write of 256 MB that puts everything else out of L2 and
keeps the device busy while the host queues the call. Peers take turns, one sample each per round; the first rounds warm up and are
dropped. A figure is the median of all samples (20 at least), its interval the 20th to the 80th percentile. Ceilings are taken the same
way in the same run: a bfloat16 matmul 8192 x 8192 x 8192 of random numbers, and a device copy of 1 GiB (bytes read + bytes written)."""

import os
import platform
import subprocess
import time
from datetime import datetime, timezone

import torch

FLUSH_BYTES = 256 << 20


class Figure:
    """Microseconds of one peer in one case: median and the 20..80 percentile interval."""

    def __init__(self, samples):
        self.samples = sorted(samples)

    def percentile(self, share):
        return self.samples[min(len(self.samples) - 1, int(share * len(self.samples)))]

    @property
    def median(self):
        middle = len(self.samples) // 2
        return self.samples[middle] if len(self.samples) % 2 else (self.samples[middle - 1] + self.samples[middle]) / 2

    def record(self):
        return {"us": self.median, "p20": self.percentile(0.2), "p80": self.percentile(0.8), "samples": len(self.samples)}


def interleaved(calls, device, rounds, warmup=3):
    """{name: Figure} of calls {name: function}, by the protocol above. On the CPU, for tests only, the host's clock and no flush."""
    samples = {name: [] for name in calls}
    cuda = device.type == "cuda"
    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device=device) if cuda else None
    for turn in range(warmup + rounds):
        events = {}
        for name, call in calls.items():
            if cuda:
                flush.zero_()
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call()
                end.record()
                events[name] = (start, end)
            else:
                begin = time.perf_counter()
                call()
                events[name] = (time.perf_counter() - begin) * 1e6
        if cuda:
            torch.cuda.synchronize(device)
        if turn >= warmup:
            for name, taken in events.items():
                samples[name].append(taken[0].elapsed_time(taken[1]) * 1e3 if cuda else taken)
    return {name: Figure(values) for name, values in samples.items()}


def ceilings(device, rounds=20):
    """(FLOP/s of a large bfloat16 matmul, bytes/s of a device copy) of this device, now. Small sizes on the CPU."""
    size, words = (8192, 1 << 28) if device.type == "cuda" else (256, 1 << 20)
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    source, target = (torch.empty(words, dtype=torch.float32, device=device).normal_() for _ in range(2))
    figures = interleaved({"matmul": lambda: torch.matmul(a, b), "copy": lambda: target.copy_(source)}, device, rounds)
    return 2 * size**3 / figures["matmul"].median * 1e6, 2 * source.numel() * 4 / figures["copy"].median * 1e6


def _output(command, where=None):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def clocks():
    """Clocks and temperature now, as nvidia-smi prints them; None without it."""
    fields = "clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
    return _output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])


def commit():
    """The commit: of the repository, or as a bundle recorded it."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        with open(os.path.join(here, "..", "COMMIT"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return _output(["git", "rev-parse", "--short", "HEAD"], here)


def machine(device):
    """GPU, driver, versions and commit."""
    facts = {"device": str(device), "torch": torch.__version__, "python": platform.python_version(), "commit": commit()}
    facts["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts["environment"] = {k: v for k, v in os.environ.items() if k.startswith(("QUERN_", "TRITON_", "CUDA_"))}
    for name in ("triton", "quern"):
        try:
            facts[name] = __import__(name).__version__
        except ImportError:
            facts[name] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "sms": properties.multi_processor_count, "memory_bytes": properties.total_memory}
        facts |= {"cuda": torch.version.cuda, "clocks": clocks()}
        facts["driver"] = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return facts
