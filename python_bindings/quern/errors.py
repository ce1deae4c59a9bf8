"""Exceptions of quern. All derive from `quern.Error`; each also derives from the built-in class that callers would expect."""

__all__ = ["Error", "CompileError", "ArgumentError", "ArgumentTypeError", "PackedInPlaceError", "RuntimeFailure", "InternalError"]


class Error(Exception):
    """Base of all exceptions of quern.

    Attributes:
        message: one sentence, what was found and what was expected.
        place: "file:line:col", "argument 'x'", a path; may be empty.
        rule: label of the rule in compiler/LANGUAGE.md ("type.rank"); may be empty.
        detail: further lines (source line with a caret, advice); may be empty.
    """

    def __init__(self, text, *, message=None, place="", rule="", detail=""):
        super().__init__(text)
        self.message = text if message is None else message
        self.place, self.rule, self.detail = place, rule, detail


class CompileError(Error, ValueError):
    """A .qn text breaks a rule of the language. `str()` shows file:line:col, the source line with a caret, and the rule's label."""


class ArgumentError(Error, ValueError):
    """An argument has a wrong shape, value, device or state. `place` names the argument."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a wrong type or dtype, is missing, or is one too many."""


class PackedInPlaceError(ArgumentError, AttributeError):
    """A bitsandbytes weight was used while quern.pack(..., inplace=True) holds its bytes in another layout."""


class RuntimeFailure(Error, OSError):
    """The machine's state is in the way: a missing library, no memory, an unreadable file."""


class InternalError(Error, RuntimeError):
    """A bug in Quern. Please report it with the text of the exception."""


def argument_error(argument, message, cls=ArgumentError, detail=""):
    """An error about `argument`, with the same text form as the native ones."""
    place = f"argument '{argument}'"
    text = f"{place}: {message}" + (f"\n{detail}" if detail else "")
    return cls(text, message=message, place=place, detail=detail)


def from_native(family, kind, text, message, place, rule, detail):
    """Called by the native module: family 0 = compiling a text, 1 = arguments; kind 0 user, 1 system, 2 internal."""
    if kind == 1:
        cls = RuntimeFailure
    elif kind == 2:
        cls = InternalError
    else:
        cls = CompileError if family == 0 else ArgumentError
    return cls(text, message=message, place=place, rule=rule, detail=detail)
