"""Plain records of a parsed program."""
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Optional


@dataclass(frozen=True)
class Dim:
    """factor * symbol, or the constant `factor` when there is no symbol."""
    factor: Fraction
    symbol: Optional[str] = None

    def value(self, dims):
        x = self.factor * (dims[self.symbol] if self.symbol else 1)
        assert x.denominator == 1, f"{self} is not whole for {dims}"
        return int(x)


@dataclass
class Codec:
    name: str
    table: list
    high_first: bool
    scale: str
    block: int
    zero: bool


@dataclass
class Param:
    name: str
    type: str  # act, float, f32, bf16, f16, routing, or the name of a codec
    dims: Optional[list]
    at: tuple
    kind: str = ""  # tensor, packed, routing, scalar


@dataclass
class Index:
    kind: str  # row, token, expert, affine
    var: str
    mul: int = 1
    offset: Dim = Dim(Fraction(0))
    at: tuple = (0, 0)


@dataclass
class Expr:
    """op: number, name, access, weight, neg, + - * /, < <= > >= == !=, call, sum."""
    op: str
    at: tuple
    args: list = field(default_factory=list)
    name: str = ""
    number: float = 0.0
    indices: list = field(default_factory=list)
    known: bool = False  # call: the fn was declared before this place

    def walk(self):
        yield self
        for a in self.args:
            yield from a.walk()


@dataclass
class Fn:
    name: str
    params: list
    lets: list  # (name, Expr)
    result: Expr
    at: tuple


@dataclass
class Stmt:
    target: str
    indices: list
    accumulate: bool
    value: Expr
    at: tuple
    ranges: dict = field(default_factory=dict)  # variable -> Dim, from the checks


@dataclass
class Kernel:
    name: str
    params: list
    outputs: list
    stmts: list
    row: str
    at: tuple
    locals: dict = field(default_factory=dict)  # name -> Dim of its columns, from the checks
    rows: Optional[Dim] = None

    @property
    def routing(self):
        return next((p for p in self.params if p.kind == "routing"), None)


@dataclass
class Program:
    codecs: dict = field(default_factory=dict)
    fns: dict = field(default_factory=dict)
    kernels: dict = field(default_factory=dict)
