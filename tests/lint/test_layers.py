"""Who may include whom (layers.py), on the tree and on bad examples; and that the built tools map no LLVM when they start."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from layers import violations
from tree import ROOT, read, tracked

CPP = (".cpp", ".h", ".cu", ".cuh", ".inc")


def test_every_include_stays_in_its_layer():
    files = tracked(*CPP)
    assert any(f.parts[0] == "compiler" for f in files), "no C++ file found: the list of files is wrong"
    assert [v for f in files for v in violations(f, read(f) or "")] == []


@pytest.mark.parametrize(
    "path, header, message",
    [
        ("compiler/support/A.h", '"compiler/syntax/Ast.h"', "compiler/support must not include compiler/syntax/Ast.h"),
        ("compiler/syntax/A.cpp", '"mlir/IR/Builders.h"', "compiler/syntax must not include LLVM or MLIR"),
        ("compiler/syntax/A.cpp", "<llvm/ADT/StringRef.h>", "compiler/syntax must not include LLVM or MLIR"),
        ("compiler/dialect/A.cpp", '"runtime/packing/Layout.h"', "compiler must not include runtime/packing/Layout.h"),
        ("compiler/passes/A.cpp", '"codegen/cpu/Lower.h"', "compiler must not include codegen/cpu/Lower.h"),
        ("codegen/cpu/A.cpp", '"runtime/launch/Kernel.h"', "codegen must not include runtime/launch/Kernel.h"),
        ("codegen/nvidia/A.cpp", "<cuda.h>", "codegen must not include CUDA headers"),
        ("compiler/passes/A.cpp", "<cuda_bf16.h>", "compiler must not include CUDA headers"),
        ("runtime/launch/A.cpp", '"llvm/Support/Error.h"', "runtime must not include LLVM or MLIR"),
        ("runtime/launch/A.cpp", '"compiler/dialect/Quern.h"', "runtime must not include compiler/dialect/Quern.h"),
        ("runtime/packing/A.cpp", '"codegen/cpu/Lower.h"', "runtime must not include codegen/cpu/Lower.h"),
        ("runtime/packing/A.cpp", '"runtime/jit/Cache.h"', "runtime must not include runtime/jit/Cache.h"),
        ("runtime/launch/A.cpp", "<nanobind/nanobind.h>", "runtime must not include Python"),
        ("python_bindings/src/A.cpp", '"mlir/IR/Builders.h"', "python_bindings must not include LLVM or MLIR"),
        ("tools/quern.cpp", '"mlir/IR/Builders.h"', "tools must not include LLVM or MLIR"),
        ("runtime/launch/A.cpp", '"../packing/Layout.h"', "is not a path from the repository's root"),
        ("elsewhere/A.cpp", "<vector>", "no layer in tests/lint/layers.py holds this file"),
    ],
)
def test_a_forbidden_include_is_found(path, header, message):
    (violation,) = violations(Path(path), f"#pragma once\n#  include {header}\n")
    assert violation.startswith(f"{path}:") and message in violation


@pytest.mark.parametrize(
    "path, header",
    [
        ("compiler/dialect/A.cpp", '"mlir/IR/Builders.h"'),
        ("codegen/cpu/A.cpp", '"runtime/jit/Jit.h"'),
        ("runtime/launch/A.cpp", '"runtime/jit/Jit.h"'),
        ("runtime/jit/A.cpp", '"codegen/cpu/Lower.h"'),
        ("runtime/driver/A.cpp", "<cuda.h>"),
        ("tools/quern-opt.cpp", '"mlir/Tools/mlir-opt/MlirOptMain.h"'),
        ("python_bindings/src/A.cpp", "<nanobind/nanobind.h>"),
        ("tests/unit/a.cpp", '"codegen/cpu/Lower.h"'),
    ],
)
def test_an_allowed_include_is_not(path, header):
    assert violations(Path(path), f"#include {header}\n") == []


def built(*patterns: str) -> list[Path]:
    build = Path(os.environ.get("QUERN_BUILD_DIR", ROOT / "build"))
    return [f for p in patterns for f in sorted(build.glob(p))]


def test_what_starts_a_process_maps_no_llvm():
    """The command line tool and the Python module open libquern-jit.so at the first miss; linked to LLVM, they would map 250 MB at once."""
    binaries = built("bin/quern", "python/quern/*.so")
    if not binaries:
        pytest.skip("nothing is built in build/ (or QUERN_BUILD_DIR)")
    for binary in binaries:
        if binary.name.startswith("libquern-jit"):
            continue
        dynamic = subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout
        needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
        assert needed, f"{binary}: readelf shows no needed library"
        assert [n for n in needed if re.match(r"lib(LLVM|MLIR|clang|quern-jit)", n)] == [], binary
