"""quern.load, modules and kernels."""

import os

import torch

from . import _quern
from ._device import common_device, place_of
from ._packed import Packed
from ._routing import Routing
from ._tensors import CODE_DTYPE, number, view
from .errors import ArgumentTypeError, CompileError, RuntimeFailure, argument_error


class Kernel:
    """A kernel of a loaded module. Call it with its parameters, by position or by keyword.

    Tensors: torch tensors of any strides (others through DLPack); packed operands: quern.Packed; the routing: quern.Routing;
    scalars: numbers. Dimensions are solved from the arguments. Returns the output as a new tensor, or a tuple when there are several.
    Rows of outputs beyond the live rows of a routing are zero.

    All arguments are on one device, and there the kernel runs: on the CPU, or on a CUDA device, where it is put on torch's current
    stream and nothing waits for it. Two keywords belong to the call (unless the kernel has a parameter of that name):
        target: "sim" runs CPU arguments on the GPU kernel's simulator instead (slow; packed operands in layout 'gpu').
        schedule: a GPU schedule as one line, whole or partial; default QUERN_GPU_SCHEDULE, else what fits the shapes.

    Raises: ArgumentError or ArgumentTypeError naming the argument (nothing is computed then), RuntimeFailure, InternalError.
    """

    def __init__(self, module, index, name, params, outputs):
        self._module, self._index, self.name = module, index, name
        self.params, self.outputs = params, outputs  # tuples of (name, kind, type as written)
        names = {p[0] for p in params}
        self._options = tuple(k for k in ("target", "schedule") if k not in names)  # keywords of the call itself
        self.__doc__ = f"{self.signature}\n\n{type(self).__doc__}"

    @property
    def signature(self):
        """The kernel's head as in the text."""
        def show(items):
            return ", ".join(f"{name}: {text}" for name, _, text in items)

        return f"{self.name}({show(self.params)}) -> {show(self.outputs)}"

    def __repr__(self):
        return f"<quern kernel {self.signature}>"

    def _ordered(self, args, kwargs):
        """Values in the order of the parameters."""
        if len(args) > len(self.params):
            raise ArgumentTypeError(f"{self.name} takes {len(self.params)} arguments, found {len(args)}: {self.signature}")
        if not kwargs and len(args) == len(self.params):
            return args
        values = list(args)
        for name, _, _ in self.params[len(args) :]:
            if name not in kwargs:
                raise argument_error(name, f"missing in the call of {self.signature}", ArgumentTypeError)
            values.append(kwargs.pop(name))
        for name in kwargs:
            known = any(name == p[0] for p in self.params)
            why = "given twice, by position and by keyword" if known else f"{self.name} has no such parameter: {self.signature}"
            raise argument_error(name, why, ArgumentTypeError)
        return values

    def __call__(self, *args, **kwargs):
        options = {k: kwargs.pop(k, None) for k in self._options} if kwargs else {}
        target, schedule = options.get("target"), options.get("schedule")
        keep, native, devices = [], [], []
        for value, (name, kind, text) in zip(self._ordered(args, kwargs), self.params):
            if kind == "packed":
                if not isinstance(value, Packed):
                    raise argument_error(
                        name, f"found {type(value).__name__}, expected {text} as made by quern.pack", ArgumentTypeError
                    )
                native.append(value._handle())
                devices.append((name, value.device))
            elif kind == "routing":
                if not isinstance(value, Routing):
                    raise argument_error(
                        name, f"found {type(value).__name__}, expected {text} as made by quern.routing", ArgumentTypeError
                    )
                native.append(value)
                devices.append((name, value.device))
            elif kind == "scalar":
                native.append(number(value, name))
                continue
            else:
                value, described = view(value, name)
                native.append(described)
                devices.append((name, value.device))
            keep.append(value)
        device = common_device(devices)
        place = place_of(device, target)
        if place is not None:
            for value, (name, kind, _) in zip(keep, (p for p in self.params if p[1] != "scalar")):
                if kind == "packed" and value.layout != "gpu":
                    raise argument_error(name, f"is in layout '{value.layout}', expected 'gpu' on this target: call its .to('gpu') first")
        elif schedule is not None:
            raise argument_error("schedule", "is for GPU targets; the CPU's is in QUERN_CPU_SCHEDULE")
        native = [v._for(place) if isinstance(v, Routing) else v for v in native]
        if place is None:
            call = self._module._native.bind(self._index, native)
        else:
            call = place.native.prepare(self._module._native, self._index, native, place.stream, schedule or "")
        results = [torch.empty(shape, dtype=CODE_DTYPE[code], device=device) for code, shape in call.outputs]
        call.run([r.data_ptr() for r in results])
        return results[0] if len(results) == 1 else tuple(results)


class Module:
    """A loaded .qn text. Its kernels are attributes: `mod.gate_up(x, route, w, b)`.

    Attributes:
        kernels: dict name -> Kernel.
        codecs: dict name -> Codec, declared in the text or brought in by `use`; pass one to quern.pack(codec=...).
        name: what messages call the text.
    """

    def __init__(self, native, name):
        self._native, self.name = native, name
        self.kernels = {k: Kernel(self, i, k, params, outputs) for i, (k, params, outputs) in enumerate(native.kernels)}
        self.codecs = {codec.name: codec for codec in native.codecs}

    def __getattr__(self, name):
        kernels = self.__dict__.get("kernels", {})
        if name in kernels:
            return kernels[name]
        raise AttributeError(f"{self.__dict__.get('name', 'module')} has no kernel '{name}'; it has: {', '.join(kernels) or 'none'}")

    def __dir__(self):
        return [*super().__dir__(), *self.kernels]

    def __repr__(self):
        lines = [f"  {kernel.signature}" for kernel in self.kernels.values()]
        return "\n".join([f"<quern module {self.name}: {len(lines)} kernels>", *lines])


def load(source):
    """Loads kernels: the path of a .qn file, the name of a shipped one ("gpt_oss" or "gpt_oss.qn"), or a text (any string holding '{').

    A file of that path wins over a shipped file of the same name. Nothing is compiled yet: each kernel is, at its first call.

    Returns: Module.
    Raises: CompileError (file:line:col, the line with a caret, the rule), RuntimeFailure when a file cannot be read,
        ArgumentError when there is no such file.
    """
    if isinstance(source, str) and "{" in source:
        return Module(_quern.load(source, "<text>"), "<text>")
    if not isinstance(source, (str, os.PathLike)):
        raise argument_error("source", f"found {type(source).__name__}, expected a path, a shipped name or a text", ArgumentTypeError)
    path = os.fspath(source)
    if os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise CompileError(f"{path}: not UTF-8 text: {error}", place=path) from None
        except OSError as error:
            raise RuntimeFailure(f"{path}: {error.strerror}", place=path) from error
        return Module(_quern.load(text, path), path)
    text = None if os.path.dirname(path) else _quern.shipped_file(path)
    if text is not None:
        name = path if path.endswith(".qn") else path + ".qn"
        return Module(_quern.load(text, name), name)
    raise argument_error("source", f"'{path}' is neither a file nor a shipped one; shipped: {', '.join(_quern.shipped_files())}")
