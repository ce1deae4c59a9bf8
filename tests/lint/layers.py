"""The layers of DESIGN.md 8 as one table, and the check of every #include line against it.

support <- everyone; compiler <- codegen <- runtime/jit; runtime (no MLIR, no LLVM) <- runtime/jit <- python_bindings, tools.
A process with a warm cache maps no LLVM, and nothing needs a CUDA installation: both start with who includes what."""

import re
from dataclasses import dataclass
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LLVM = re.compile(r"^(mlir|llvm|llvm-c|mlir-c|clang|lld)/")
# The driver's and the toolkit's headers, by name: cuda.h, cuda_bf16.h, cudaTypedefs.h, nvrtc.h, ...
CUDA = re.compile(r"^(cuda\w*|cublas\w*|nvrtc|nvJitLink|nvPTXCompiler|device_launch_parameters)\.h$|^(cub|thrust|cuda)/")
PYTHON = re.compile(r"^(Python\.h$|nanobind/|pybind11/|torch/|ATen/|c10/)")
# Plain data that the compiler's caller and the compiler share; the only runtime headers that codegen may see.
CONTRACT = ("runtime/jit/Jit.h", "runtime/jit/GpuImage.h", "runtime/sim/Sim.h", "runtime/packing/Layout.h")


@dataclass(frozen=True)
class Layer:
    folder: str
    uses: tuple[str, ...]  # folders or headers of this repository that it may include
    llvm: bool = False
    cuda: bool = False
    python: bool = False


# The first entry whose folder contains the file decides.
LAYERS = [
    Layer("compiler/support", ("compiler/support",)),
    Layer("compiler/syntax", ("compiler/support", "compiler/syntax")),
    Layer("compiler", ("compiler",), llvm=True),
    Layer("codegen", ("compiler", "codegen", *CONTRACT), llvm=True),
    Layer("runtime/jit", ("compiler", "codegen", "runtime"), llvm=True),
    Layer("runtime/sim", ("runtime/sim",)),
    Layer("runtime/config", ("compiler/support", "runtime/config")),
    Layer("runtime/cache", ("compiler/support", "runtime/config", "runtime/cache")),
    Layer(
        "runtime/driver",
        ("compiler/support", "runtime/config", "runtime/cache", "runtime/driver", "runtime/gpu/Backend.h")
        + ("runtime/gpu/Timer.h", "runtime/jit/GpuImage.h", "kernels/DeviceSources.h"),
        cuda=True,
    ),
    # Schedules and the cost model are plain C++.
    Layer(
        "runtime/tune",
        ("compiler/support", "compiler/syntax", "runtime", "codegen/gpu/Schedule.h", "codegen/gpu/CostModel.h", "codegen/cpu/Schedule.h"),
    ),
    Layer(
        "runtime",
        ("compiler/support", "compiler/syntax", "runtime/jit/Jit.h", "runtime/jit/GpuImage.h", "runtime/jit/CompilerStamp.h")
        + ("runtime/driver", "runtime/cache", "runtime/config")
        + ("runtime/routing", "runtime/sim/Sim.h", "runtime/gpu", "runtime/packing", "runtime/tune", "runtime/launch", "runtime/oracle"),
    ),
    Layer("python_bindings", ("compiler/support", "compiler/syntax", "runtime", "python_bindings"), python=True),
    Layer("tools/quern-opt.cpp", ("compiler", "codegen", "tools"), llvm=True),
    # Schedules, the cost model and SASS are plain C++: `quern explain` shows them without LLVM.
    Layer(
        "tools",
        ("compiler/support", "compiler/syntax", "runtime", "tools", "codegen/gpu/Schedule.h", "codegen/gpu/CostModel.h", "codegen/nvidia/Sass.h"),
    ),
    Layer("kernels", ("kernels",)),
]
TOP = ("tests/", "benchmarks/")  # may include anything


def contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def violations(path: Path, text: str) -> list[str]:
    """The include lines of one C++ file that break its layer, as "path:line: message"."""
    name = path.as_posix()
    if name.startswith(TOP):
        return []
    layer = next((l for l in LAYERS if contains(l.folder, name)), None)
    if layer is None:
        return [f"{name}:1: no layer in tests/lint/layers.py holds this file"]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match and (reason := broken(layer, *match.groups())):
            found.append(f"{name}:{number}: {reason}")
    return found


def broken(layer: Layer, quote: str, header: str) -> str | None:
    if LLVM.match(header):
        return None if layer.llvm else f"{layer.folder} must not include LLVM or MLIR ({header})"
    if CUDA.match(header):
        return None if layer.cuda else f"{layer.folder} must not include CUDA headers ({header})"
    if PYTHON.match(header):
        return None if layer.python else f"{layer.folder} must not include Python ({header})"
    if header.startswith(("compiler/", "codegen/", "runtime/", "kernels/", "python_bindings/", "tools/", "tests/", "benchmarks/")):
        if any(contains(use, header) for use in layer.uses):
            return None
        return f"{layer.folder} must not include {header}; it may use {', '.join(layer.uses)}"
    if quote == '"':
        return f'"{header}" is not a path from the repository\'s root'
    return None
