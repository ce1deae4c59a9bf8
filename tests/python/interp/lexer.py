"""Text to tokens (LANGUAGE.md, lexical structure)."""
import re
from typing import NamedTuple

MAX_BYTES, MAX_NAME, MAX_DEPTH = 1 << 20, 255, 256

RESERVED = {"use", "codec", "fn", "kernel", "return", "sum", "act", "float", "f32", "bf16", "f16", "routing"}
BUILTINS = {"min": 2, "max": 2, "clamp": 3, "exp": 1, "sigmoid": 1, "tanh": 1, "erf": 1, "select": 3}


class QnError(Exception):
    """A rejected program: rule label and (line, column)."""

    def __init__(self, rule, message, at=(0, 0)):
        super().__init__(f"{at[0]}:{at[1]}: {message} [{rule}]")
        self.rule, self.at = rule, at


class Token(NamedTuple):
    kind: str  # "name", "number", "end", or the symbol itself
    text: str
    at: tuple


PATTERN = re.compile(
    r"""(?P<space>[ \t\r]+) | (?P<newline>\n) | (?P<comment>\#[^\n]*) | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9][0-9A-Za-z_.]*(?:(?<=[eE])[+-][0-9A-Za-z_.]*)?)
      | (?P<symbol>->|\+=|<=|>=|==|!=|[()\[\]{},:.=+\-*/<>])""",
    re.VERBOSE,
)
NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
CLOSES = {")": "(", "]": "[", "}": "{"}


def lex(text):
    """A list of tokens; raises QnError at the first character that cannot be one."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise QnError("text.size", "too long")
    if "\0" in text:
        raise QnError("text.nul", "NUL byte")
    tokens, brackets, position, line, line_start = [], [], 0, 1, 0
    while position < len(text):
        at = (line, position - line_start + 1)
        match = PATTERN.match(text, position)
        if not match:
            raise QnError("text.char", f"{text[position]!r} has no meaning", at)
        kind, word = match.lastgroup, match.group()
        position = match.end()
        if kind == "newline":
            line, line_start = line + 1, position
        elif kind == "name":
            if len(word) > MAX_NAME:
                raise QnError("name.length", "name too long", at)
            tokens.append(Token("name", word, at))
        elif kind == "number":
            if not NUMBER.match(word):
                raise QnError("number.form", f"{word!r} is no number", at)
            if len(word) > MAX_NAME:
                raise QnError("name.length", "number too long", at)
            tokens.append(Token("number", word, at))
        elif kind == "symbol":
            if word in "([{":
                brackets.append(word)
                if len(brackets) > MAX_DEPTH:
                    raise QnError("limit.depth", "too many brackets", at)
            elif word in CLOSES and (not brackets or brackets.pop() != CLOSES[word]):
                raise QnError("bracket.match", f"{word} closes nothing", at)
            tokens.append(Token(word, word, at))
    if brackets:
        raise QnError("bracket.match", "a bracket is not closed", (line, 1))
    tokens.append(Token("end", "", (line, position - line_start + 1)))
    return tokens
