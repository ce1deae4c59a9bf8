"""How the GPU benchmark takes times, and what a figure must carry with it.

Protocol: every sample is one call between two CUDA events, right after a write of 256 MB that puts everything else out of L2 and
keeps the device busy while the host queues the call. Peers take turns, one sample each per round; the first rounds warm up and are
dropped. A figure is the median of all samples (20 at least), its interval the 20th to the 80th percentile; beside it the median of the
host's time in the call, which is what queueing costs (a call that waits for the device shows it there). Ceilings are taken the same
way in the same run: a bfloat16 matmul 8192 x 8192 x 8192 of random numbers, and a device copy of 1 GiB (bytes read + bytes written)."""

import os
import platform
import subprocess
import time
from datetime import datetime, timezone

import torch

FLUSH_BYTES = 256 << 20


class Figure:
    """Microseconds of one peer in one case: median and the 20..80 percentile interval, and those that the host spent in the call."""

    def __init__(self, samples, host=()):
        self.samples, self.host = sorted(samples), sorted(host)

    def percentile(self, share):
        return self.samples[min(len(self.samples) - 1, int(share * len(self.samples)))]

    @property
    def median(self):
        middle = len(self.samples) // 2
        return self.samples[middle] if len(self.samples) % 2 else (self.samples[middle - 1] + self.samples[middle]) / 2

    def record(self):
        host = self.host[len(self.host) // 2] if self.host else None
        return {"host_us": host, "us": self.median, "p20": self.percentile(0.2), "p80": self.percentile(0.8), "samples": len(self.samples)}


def captured(call):
    """The call as a CUDA graph: its replay, or the call itself where it cannot be captured (it waits for the device)."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except Exception:  # whatever the peer raises, the device is asked whether it is well
        torch.cuda.synchronize()
        return call
    return graph.replay


def interleaved(calls, device, rounds, warmup=3, graphs=False):
    """{name: Figure} of calls {name: function}, by the protocol above. graphs: each is captured once and replayed, so that a
    figure is the device's time whatever the host does. On the CPU, for tests only, the host's clock and no flush."""
    if graphs and device.type == "cuda":
        calls = {name: captured(call) for name, call in calls.items()}
    samples, host = ({name: [] for name in calls} for _ in range(2))
    cuda = device.type == "cuda"
    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device=device) if cuda else None
    for turn in range(warmup + rounds):
        events, spent = {}, {}
        for name, call in calls.items():
            if cuda:
                flush.zero_()
                events[name] = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))
                events[name][0].record()
            begin = time.perf_counter()
            call()
            spent[name] = (time.perf_counter() - begin) * 1e6
            if cuda:
                events[name][1].record()
        if cuda:
            torch.cuda.synchronize(device)
        if turn >= warmup:
            for name, us in spent.items():
                samples[name].append(events[name][0].elapsed_time(events[name][1]) * 1e3 if cuda else us)
                host[name].append(us)
    return {name: Figure(values, host[name]) for name, values in samples.items()}


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
