"""Tokens to a tree (LANGUAGE.md, grammar). Precedence by climbing; whatever depends on declarations is left to checks.py."""
import math
import struct
from fractions import Fraction
from pathlib import Path

from .lexer import BUILTINS, MAX_DEPTH, RESERVED, QnError, lex
from .tree import Codec, Dim, Expr, Fn, Index, Kernel, Param, Program, Stmt

KERNELS = Path(__file__).resolve().parents[3] / "kernels"
COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
MAX_DIMENSION, MAX_FACTOR = 1 << 31, 1 << 20


def f32(value):
    """The nearest fp32 number; infinite beyond the largest."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


class Parser:
    def __init__(self, text, nested=False):
        self.tokens, self.position, self.nested = lex(text), 0, nested
        self.program, self.row, self.in_fn, self.signs = Program(), "", False, 0

    # Tokens
    @property
    def token(self):
        return self.tokens[self.position]

    def ahead(self, n=1):
        return self.tokens[min(self.position + n, len(self.tokens) - 1)]

    def fail(self, rule, message, token=None):
        raise QnError(rule, message, (token or self.token).at)

    def advance(self):
        token = self.token
        self.position = min(self.position + 1, len(self.tokens) - 1)
        return token

    def have(self, kind):
        return self.advance() if self.token.kind == kind else None

    def need(self, kind, rule="syntax"):
        return self.have(kind) or self.fail(rule, f"found {self.token.text!r}, expected {kind}")

    def word(self, *words):
        return self.token.kind == "name" and self.token.text in words

    def need_word(self, *words, rule="syntax"):
        return self.advance().text if self.word(*words) else self.fail(rule, f"found {self.token.text!r}, expected {words}")

    def free_name(self):
        token = self.need("name")
        if token.text in RESERVED or token.text in BUILTINS:
            self.fail("name.reserved", f"{token.text} is reserved", token)
        return token.text

    def integer(self, low, high, rule):
        token = self.token
        if token.kind != "number" or not token.text.isdigit() or not low <= int(token.text) <= high:
            self.fail(rule, f"found {token.text!r}, expected a whole number from {low} to {high}")
        return int(self.advance().text)

    def number(self):
        token = self.need("number")
        value = float(token.text)
        is_zero = not any(c in "123456789" for c in token.text.lower().split("e")[0])
        if not is_zero and (math.isinf(f32(value)) or f32(value) == 0):
            self.fail("number.range", f"{token.text} is out of range", token)
        return 0.0 if is_zero else value

    def listed(self, item, close):
        out = [item()]
        while self.have(","):
            out.append(item())
        self.need(close)
        return out

    # Declarations
    def parse(self):
        while self.token.kind != "end":
            keyword = self.need_word("use", "codec", "fn", "kernel")
            getattr(self, keyword)()
        if not (self.program.codecs or self.program.fns or self.program.kernels):
            self.fail("file.empty", "no declarations")
        return self.program

    def use(self):
        token = self.need("name")
        if self.nested:
            self.fail("use.nested", "use in a used file", token)
        path = KERNELS / f"{token.text}.qn"
        if not path.is_file():
            self.fail("use.unknown", f"no file {token.text}.qn", token)
        used = Parser(path.read_text(), nested=True).parse()
        if not used.codecs:
            self.fail("use.empty", "no codec", token)
        for codec in used.codecs.values():
            self.add_codec(codec, token)

    def add_codec(self, codec, token):
        if codec.name in self.program.codecs:
            self.fail("name.duplicate", f"codec {codec.name} again", token)
        self.program.codecs[codec.name] = codec

    def table_entry(self):
        sign = -1.0 if self.have("-") else 1.0
        return f32(sign * self.number())

    def codec(self):
        at = self.token
        name = self.free_name()
        self.need("{")
        fields = {}
        while not self.have("}"):
            token = self.token
            key = self.need_word("table", "first", "scale", "zero", rule="codec.field")
            if key in fields:
                self.fail("codec.field", f"{key} again", token)
            if key == "table":
                self.need("=")
                opening = self.need("[")
                fields[key] = [] if self.have("]") else self.listed(self.table_entry, "]")
                if len(fields[key]) != 16:
                    self.fail("codec.table", f"{len(fields[key])} entries", opening)
            elif key == "first":
                self.need("=")
                fields[key] = self.need_word("high", "low", rule="codec.first")
            else:
                kinds = ("u4",) if key == "zero" else ("f32", "bf16", "e8m0")
                kind = self.need_word(*kinds, rule="codec." + key)
                self.need_word("per")
                block = self.integer(32, 4096, "codec.block")
                fields[key] = (kind, block)
                if key == "scale" and block & (block - 1):
                    self.fail("codec.block", f"{block} is no power of two", token)
        if not {"table", "first", "scale"} <= set(fields):
            self.fail("codec.field", "a field is missing", at)
        scale, block = fields["scale"]
        if "zero" in fields and fields["zero"][1] != block:
            self.fail("codec.zero", "zero and scale differ in block size", at)
        self.add_codec(Codec(name, fields["table"], fields["first"] == "high", scale, block, "zero" in fields), at)

    def fn(self):
        at = self.token
        name = self.free_name()
        self.need("(")
        params = [] if self.have(")") else self.listed(self.free_name, ")")
        if len(params) > MAX_DEPTH:
            self.fail("limit.params", "too many parameters", at)
        if len(set(params)) < len(params):
            self.fail("name.duplicate", "a parameter twice", at)
        self.need("{")
        self.in_fn, lets, names = True, [], set(params)
        while not self.word("return"):
            token = self.token
            let = self.free_name()
            self.need("=")
            if let in names:
                self.fail("name.duplicate", f"{let} again", token)
            names.add(let)
            lets.append((let, self.value()))
        self.advance()
        result = self.value()
        self.need("}")
        self.in_fn = False
        if name in self.program.fns:
            self.fail("name.duplicate", f"fn {name} again", at)
        self.program.fns[name] = Fn(name, params, lets, result, at.at)

    def kernel(self):
        at = self.token
        name = self.free_name()
        if name in self.program.kernels:
            self.fail("name.duplicate", f"kernel {name} again", at)
        self.need("(")
        params = self.listed(self.param, ")")
        self.need("->")
        outputs = [self.param()]
        while self.have(","):
            outputs.append(self.param())
        self.need("{")
        if max(len(params), len(outputs)) > MAX_DEPTH:
            self.fail("limit.params", "too many parameters", at)
        self.row, stmts = "", []
        while not self.have("}"):
            stmts.append(self.stmt())
        self.program.kernels[name] = Kernel(name, params, outputs, stmts, self.row, at.at)

    def param(self):
        at = self.token.at
        name = self.free_name()
        self.need(":")
        kind = self.need("name").text
        dims = None
        if self.have("["):
            dims = self.listed(self.dim, "]")
            if len(dims) > 3:
                raise QnError("type.rank", "more than three dimensions", at)
        return Param(name, kind, dims, at)

    def dim(self, low=1):
        factor = 1
        if self.token.kind == "number":
            factor = self.integer(low, MAX_DIMENSION, "dim.form")
            if not self.have("*"):
                return Dim(Fraction(factor))
            if not 1 <= factor <= MAX_FACTOR:
                self.fail("dim.form", "factor too large")
        symbol = self.need("name", "dim.form").text
        divisor = self.integer(1, MAX_FACTOR, "dim.form") if self.have("/") else 1
        return Dim(Fraction(factor, divisor), symbol)

    def stmt(self):
        at = self.token.at
        target = self.free_name()
        self.need("[")
        if not self.row and self.token.kind == "name":
            self.row = self.token.text
        indices = self.indices()
        accumulate = bool(self.have("+="))
        if not accumulate:
            self.need("=")
        return Stmt(target, indices, accumulate, self.value(), at)

    def indices(self):
        out = self.listed(self.index, "]")
        if len(out) > 3:
            self.fail("access.rank", "more than three indices")
        return out

    def index(self):
        at, mul = self.token.at, 1
        if self.token.kind == "number":
            mul = self.integer(1, MAX_FACTOR, "index.form")
            self.need("*", "index.form")
        if self.token.kind != "name":
            self.fail("index.form", "expected an index")
        token = self.token
        var = self.free_name()
        if self.have("."):
            if var != self.row:
                self.fail("row.variable", f"{var} is not the row variable", token)
            index = Index(self.need_word("token", "expert", rule="row.field"), var, mul, at=at)
        else:
            index = Index("row" if var == self.row else "affine", var, mul, at=at)
        if index.kind != "affine" and (mul != 1 or self.token.kind == "+"):
            self.fail("index.form", "arithmetic on the row variable")
        if self.have("+"):
            index.offset = self.dim(low=0)
        return index

    # Expressions
    def value(self):
        out = self.binary(1)
        if self.token.kind in COMPARISONS:
            self.fail("select.condition", "a comparison outside select")
        return out

    def binary(self, level):
        left = self.unary()
        while PRECEDENCE.get(self.token.kind, 0) >= level:
            token = self.advance()
            left = Expr(token.kind, token.at, [left, self.binary(PRECEDENCE[token.kind] + 1)])
        return left

    def unary(self):
        if not (minus := self.have("-")):
            return self.primary()
        self.signs += 1
        if self.signs > MAX_DEPTH:
            self.fail("limit.depth", "too many signs", minus)
        out = Expr("neg", minus.at, [self.unary()])
        self.signs -= 1
        return out

    def primary(self):
        token = self.token
        if token.kind == "number":
            return Expr("number", token.at, number=self.number())
        if self.have("("):
            out = self.value()
            self.need(")")
            return out
        self.need("name")
        if token.text == "sum":
            out = self.sum(token)
            if self.token.kind in "*/":
                self.fail("sum.factors", "a third factor")
            return out
        if self.token.kind == "(":
            return self.call(token)
        if token.text in RESERVED or token.text in BUILTINS:
            self.fail("name.reserved", f"{token.text} is reserved", token)
        if self.token.kind == "[":
            return self.access(token)
        if self.token.kind != ".":
            return Expr("name", token.at, name=token.text)
        if self.in_fn:
            self.fail("fn.scalar", "a row in a fn", token)
        self.advance()
        if token.text != self.row:
            self.fail("row.variable", f"{token.text} is not the row variable", token)
        self.need_word("weight", rule="row.field")
        return Expr("weight", token.at)

    def call(self, token):
        if token.text in RESERVED:
            self.fail("name.reserved", f"{token.text} is reserved", token)
        self.need("(")
        args = []
        if not self.have(")"):
            first = self.condition if token.text == "select" else self.value
            args.append(first())
            while self.have(","):
                args.append(self.value())
            self.need(")")
        return Expr("call", token.at, args, name=token.text, known=token.text in self.program.fns)

    def condition(self):
        left = self.binary(1)
        if self.token.kind not in COMPARISONS:
            self.fail("select.condition", "no comparison")
        token = self.advance()
        return Expr(token.kind, token.at, [left, self.value()])

    def sum(self, token):
        if self.in_fn:
            self.fail("fn.scalar", "a sum in a fn", token)
        self.need("(")
        var = self.free_name()
        self.need(")")
        first = self.factor()
        self.need("*", "sum.factors")
        return Expr("sum", token.at, [first, self.factor()], name=var)

    def factor(self):
        if self.token.kind == "(" and self.ahead().text == "sum" and self.ahead().kind == "name":
            self.advance()
            out = self.sum(self.advance())
            self.need(")", "sum.factors")
            return out
        if self.token.kind != "name" or self.ahead().kind != "[":
            self.fail("sum.factors", "a factor of a sum is an access or a sum in parentheses")
        return self.access(self.advance())

    def access(self, token):
        if self.in_fn:
            self.fail("fn.scalar", "an access in a fn", token)
        self.need("[")
        return Expr("access", token.at, name=token.text, indices=self.indices())


def parse(text):
    """A Program that is well formed but not yet checked; raises QnError."""
    return Parser(text).parse()
