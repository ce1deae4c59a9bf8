"""The package as such: stubs agree with what is there, errors are what they say, nothing heavy is imported."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import quern
from quern import _quern, errors

PACKAGE = Path(quern.__file__).parent


def stub_names(name):
    return {
        n.name if isinstance(n, (ast.FunctionDef, ast.ClassDef)) else n.names[0].asname
        for n in ast.parse((PACKAGE / name).read_text()).body
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)) or (isinstance(n, ast.ImportFrom) and n.names[0].asname)
    }


def test_stubs_name_all_that_is_public():
    assert set(quern.__all__) == stub_names("__init__.pyi")
    assert (PACKAGE / "py.typed").exists()
    native = {n for n in dir(_quern) if not n.startswith("_")}
    assert native == stub_names("_quern.pyi") - {None}


@pytest.mark.parametrize("name", ["pack", "routing", "load", "unpack", "dequantize", "set_num_threads"])
def test_stub_signatures(name):
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    stub = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name).args
    found = list(inspect.signature(getattr(quern, name)).parameters)
    assert found == [a.arg for a in stub.args + stub.kwonlyargs]


def test_everything_public_has_a_docstring():
    for name in quern.__all__:
        if name != "Codec":
            assert getattr(quern, name).__doc__, name


def test_exception_classes():
    expected = {
        "CompileError": ValueError, "ArgumentError": ValueError, "ArgumentTypeError": TypeError, "PackedInPlaceError": AttributeError,
        "RuntimeFailure": OSError, "InternalError": RuntimeError,
    }  # fmt: skip
    for name, builtin in expected.items():
        cls = getattr(quern, name)
        assert issubclass(cls, quern.Error) and issubclass(cls, builtin)
        assert str(cls("text")) == "text" and cls("text").message == "text"
    assert {n for n in errors.__all__ if n != "Error"} == set(expected)


@pytest.mark.parametrize("kind, cls", [(0, quern.ArgumentError), (1, quern.RuntimeFailure), (2, quern.InternalError)])
def test_native_errors_keep_their_parts(kind, cls):
    error = errors.from_native(1, kind, "p: m [r]\nd", "m", "p", "r", "d")
    assert type(error) is cls and (str(error), error.message, error.place, error.rule, error.detail) == ("p: m [r]\nd", "m", "p", "r", "d")
    assert type(errors.from_native(0, 0, "x", "x", "", "", "")) is quern.CompileError


def test_import_is_light():
    """Importing quern loads neither the compiler nor the packages that only pack and checkpoint need."""
    code = (
        "import quern, sys; maps = open('/proc/self/maps').read();"
        "print('LLVM' in maps, 'libquern-jit' in maps, [m for m in ('bitsandbytes', 'transformers', 'safetensors') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "False False []"
