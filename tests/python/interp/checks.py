"""The rules of LANGUAGE.md on names, shapes, rows and ranges. `check` annotates the tree or raises QnError."""
import math
from fractions import Fraction

from .lexer import BUILTINS, QnError
from .parser import COMPARISONS, MAX_FACTOR, parse
from .tree import Dim

FLOATS = ("act", "float", "f32", "bf16", "f16")
ZERO = Dim(Fraction(0))


def require(condition, rule, message, at):
    if not condition:
        raise QnError(rule, message, at)


class Sizes:
    """What is known of the symbols: each is a positive multiple of its divisor."""

    def __init__(self):
        self.divisors = {}

    def learn(self, dim, at):
        if dim.symbol:
            divisor = math.lcm(self.divisors.get(dim.symbol, 1), dim.factor.denominator)
            require(divisor <= MAX_FACTOR, "dim.form", "divisor too large", at)
            self.divisors[dim.symbol] = divisor

    def whole(self, dim):
        return not dim.symbol or self.divisors.get(dim.symbol, 1) % dim.factor.denominator == 0

    def in_range(self, mul, run, offset, size):
        """mul * (run - 1) + offset < size for all sizes?"""
        slope, constant, symbols = Fraction(0), Fraction(mul - 1), set()
        for sign, dim in ((1, size), (-1, offset), (-mul, run)):
            if dim.symbol:
                slope += sign * dim.factor
                symbols.add(dim.symbol)
            else:
                constant += sign * dim.factor
        if not symbols:
            return constant >= 0
        smallest = self.divisors.get(next(iter(symbols)), 1)
        return len(symbols) == 1 and slope >= 0 and slope * smallest + constant >= 0

    def run_of(self, mul, offset, size):
        """The largest run of a variable in `size`, where a Dim can say it; else None."""
        if not size.symbol and not offset.symbol:
            count = (size.factor - offset.factor - 1) // mul + 1
            return Dim(Fraction(count)) if offset.factor < size.factor else None
        if offset.symbol:
            if offset.symbol != size.symbol or offset.factor >= size.factor:
                return None
            run = Dim((size.factor - offset.factor) / mul, size.symbol)
        else:
            if offset.factor >= mul:
                return None
            run = Dim(size.factor / mul, size.symbol)
        small = run.factor.numerator <= MAX_FACTOR and run.factor.denominator <= MAX_FACTOR
        return run if small and self.whole(run) else None


class KernelCheck:
    def __init__(self, program, kernel):
        self.program, self.kernel = program, kernel
        self.sizes, self.dims = Sizes(), set()
        self.params = {}
        self.read, self.written, self.pure = set(), set(), {}

    def run(self):
        kernel = self.kernel
        self.declare()
        require(all(o.dims[0] in self.allowed_rows() for o in kernel.outputs), "output.rows", "rows", kernel.at)
        for stmt in kernel.stmts:
            self.stmt(stmt)
        for stmt in kernel.stmts:
            if stmt.target in self.written:
                self.compose(stmt.value, 1, ZERO)
        for output in kernel.outputs:
            require(output.name in self.written, "output.unwritten", output.name, output.at)
        for p in kernel.params:
            require(p.kind == "routing" or p.name in self.read, "param.unused", p.name, p.at)
        for name in kernel.locals:
            require(name in self.read, "local.unused", name, kernel.at)

    def allowed_rows(self):
        kernel = self.kernel
        kernel.rows = Dim(Fraction(1), "R") if kernel.routing else kernel.outputs[0].dims[0]
        return {kernel.rows, kernel.routing.dims[0]} if kernel.routing else {kernel.rows}

    def declare(self):
        kernel = self.kernel
        for p in kernel.params + kernel.outputs:
            if p.type == "routing":
                p.kind = "routing"
            elif p.type in FLOATS:
                p.kind = "tensor" if p.dims else "scalar"
            else:
                require(p.type in self.program.codecs, "type.unknown", p.type, p.at)
                p.kind = "packed"
            require(p.name not in self.params, "name.duplicate", p.name, p.at)
            self.params[p.name] = p
        routings = [p for p in kernel.params if p.kind == "routing"]
        require(len(routings) <= 1, "routing.one", "two routings", kernel.at)
        for p in routings:
            plain = p.dims and all(d.symbol and d.factor == 1 and d.symbol != "R" for d in p.dims)
            require(plain and len(p.dims) == 2 and p.dims[0] != p.dims[1], "routing.dims", "routing[T, E]", p.at)
        for p in kernel.params:
            if p.kind == "scalar":
                require(p.type == "f32", "type.scalar", "scalars are f32", p.at)
            if p.kind == "packed":
                require(p.dims and len(p.dims) in (2, 3), "type.packed", "rank", p.at)
                require(len(p.dims) == 2 or routings, "type.packed", "experts without routing", p.at)
            self.declare_dims(p, False)
        act = any(p.kind == "tensor" and p.type == "act" for p in kernel.params)
        for p in kernel.outputs:
            good = p.kind == "tensor" and len(p.dims) == 2 and p.type != "float"
            require(good, "type.output", "outputs are tensors of rank 2", p.at)
            require(p.type != "act" or act, "type.act", "act has no value", p.at)
            self.declare_dims(p, True)

    def declare_dims(self, p, is_output):
        for i, dim in enumerate(p.dims or []):
            if dim.symbol == "R":
                good = self.kernel.routing and i == 0 and dim.factor == 1 and p.kind == "tensor" and len(p.dims) <= 2
                require(good, "dim.rows", "R out of place", p.at)
            elif dim.symbol:
                require(not is_output or dim.symbol in self.dims, "dim.unknown", dim.symbol, p.at)
                self.dims.add(dim.symbol)
                self.sizes.learn(dim, p.at)

    def free_variable(self, name, at):
        taken = name in self.params or name in self.kernel.locals or name in self.dims or name == "R"
        require(not taken, "name.duplicate", f"{name} is taken", at)

    def stmt(self, stmt):
        kernel, name = self.kernel, stmt.target
        output = next((o for o in kernel.outputs if o.name == name), None)
        require(output or name not in self.params, "assign.target", "a parameter is written", stmt.at)
        require(len(stmt.indices) == 2, "assign.target", "two indices", stmt.at)
        row, column = stmt.indices
        require(row.kind in ("row", "token"), "row.variable", "row variable first", row.at)
        plain = column.kind == "affine" and column.mul == 1 and column.offset == ZERO
        require(plain, "assign.column", "plain column", column.at)
        require(row.kind == "row" or kernel.routing, "row.routing", "no routing", row.at)
        self.free_variable(kernel.row, row.at)
        self.free_variable(column.var, column.at)
        require(name not in self.written and name not in kernel.locals, "assign.twice", name, stmt.at)
        if output:
            combine = bool(kernel.routing) and output.dims[0] != kernel.rows
            require(combine == (row.kind == "token"), "assign.row", "row and token differ", row.at)
            require(combine == stmt.accumulate, "assign.combine", "+= where rows meet, else =", stmt.at)
            require(not combine or output.type == "f32", "type.combine", "f32", stmt.at)
            self.written.add(name)
        else:
            require(not stmt.accumulate and row.kind == "row", "assign.local", "local", stmt.at)
        taken = name in self.dims or name in (kernel.row, column.var)
        require(not taken, "name.duplicate", f"{name} is taken", stmt.at)
        self.column, self.uses = column.var, []
        self.expr(stmt.value)
        self.infer(stmt, output)
        if not output:
            kernel.locals[name] = stmt.ranges[column.var]
            self.pure[name] = stmt.value.op == "sum"

    def infer(self, stmt, output):
        if output:
            run = output.dims[1]
        else:
            runs = [self.sizes.run_of(i.mul, i.offset, size) for i, size, _ in self.uses if i.var == self.column]
            require(runs and None not in runs, "range.unknown", "no range", stmt.at)
            require(len({r.symbol for r in runs}) == 1, "range.conflict", "ranges differ", stmt.at)
            run = min(runs, key=lambda r: r.factor)
        stmt.ranges = {self.column: run}
        for index, size, _ in self.uses:
            stmt.ranges.setdefault(index.var, size)
        for index, size, exact in self.uses:
            run = stmt.ranges[index.var]
            require(not exact or run == size, "sum.shape", "sum over a part", index.at)
            good = self.sizes.in_range(index.mul, run, index.offset, size)
            require(good, "access.range", "index out of range", index.at)

    def compose(self, e, mul, offset):
        """A local read at mul*j + offset must itself read at indices of that form."""
        if e.op == "sum":
            return  # operands of sums are indexed by plain variables
        for a in e.args:
            self.compose(a, mul, offset)
        if e.op != "access" or e.indices[-1].kind != "affine":
            return
        index = e.indices[-1]
        scaled, own = Dim(offset.factor * index.mul, offset.symbol), index.offset
        fits = scaled.symbol == own.symbol or 0 in (scaled.factor, own.factor)
        require(fits, "index.compose", "offsets do not add", e.at)
        if e.name in self.kernel.locals:
            total = scaled.factor + own.factor
            symbol = (scaled if scaled.factor else own).symbol if total else None
            inner = next(s for s in self.kernel.stmts if s.target == e.name)
            self.compose(inner.value, mul * index.mul, Dim(total, symbol))

    # Expressions
    def expr(self, e):
        if e.op == "sum":
            return self.sum(e, self.column, ())
        if e.op == "access":
            return self.access(e)
        if e.op == "name":
            p = self.params.get(e.name)
            require(p and p.kind == "scalar" and p in self.kernel.params, "name.value", f"{e.name} is no scalar", e.at)
            self.read.add(e.name)
        require(e.op != "weight" or self.kernel.routing, "row.routing", "no routing", e.at)
        if e.op == "call":
            check_call(self.program, e)
        for a in e.args:
            self.expr(a)

    def param(self, e):
        p = self.params.get(e.name)
        require(p, "name.unknown", e.name, e.at)
        require(p not in self.kernel.outputs, "access.output", e.name, e.at)
        require(p.kind in ("tensor", "packed") and len(p.dims) == len(e.indices), "access.rank", e.name, e.at)
        self.read.add(e.name)
        return p

    def row_index(self, index, size, expert):
        require(index.kind != "affine" and (expert or index.kind != "expert"), "access.row", "row", index.at)
        routing = self.kernel.routing
        require(index.kind == "row" or routing, "row.routing", "no routing", index.at)
        expected = {"row": self.kernel.rows} | ({"token": routing.dims[0], "expert": routing.dims[1]} if routing else {})
        require(size == expected[index.kind], "access.shape", "size", index.at)

    def use(self, index, size, var, exact):
        require(index.kind == "affine" and index.var == var, "access.column", f"expected {var}", index.at)
        require(not exact or (index.mul == 1 and index.offset == ZERO), "sum.index", "plain", index.at)
        require(not index.offset.symbol or index.offset.symbol in self.dims, "dim.unknown", "offset", index.at)
        require(self.sizes.whole(index.offset), "dim.whole", "offset", index.at)
        self.uses.append((index, size, exact))

    def local(self, e, var, exact):
        require(len(e.indices) == 2, "access.rank", e.name, e.at)
        require(e.indices[0].kind == "row", "access.row", e.name, e.at)
        self.read.add(e.name)
        self.use(e.indices[1], self.kernel.locals[e.name], var, exact)

    def access(self, e):
        if e.name in self.kernel.locals:
            return self.local(e, self.column, False)
        p = self.param(e)
        require(p.kind == "tensor", "sum.packed", "packed outside a sum", e.at)
        require(len(p.dims) < 3, "access.rank", "rank 3 outside a sum", e.at)
        if len(p.dims) == 1 and e.indices[0].kind == "affine":
            return self.use(e.indices[0], p.dims[0], self.column, False)
        self.row_index(e.indices[0], p.dims[0], True)
        if len(p.dims) == 2:
            self.use(e.indices[1], p.dims[1], self.column, False)

    def sum(self, e, column, outer):
        var = e.name
        require(var not in (self.kernel.row, column, self.column) + outer, "sum.variable", var, e.at)
        self.free_variable(var, e.at)

        def by_row(f):
            return f.op == "sum" or f.indices[0].kind in ("row", "token")

        if not by_row(e.args[0]) and by_row(e.args[1]):
            e.args.reverse()
        lhs, rhs = e.args
        if lhs.op == "sum":
            self.sum(lhs, var, outer + (var,))
        elif lhs.name in self.kernel.locals:
            require(self.pure[lhs.name], "sum.local", "more than a sum", lhs.at)
            self.local(lhs, var, True)
        else:
            p = self.param(lhs)
            require(by_row(lhs), "sum.rows", "no factor has rows", lhs.at)
            require(p.kind == "tensor" and len(p.dims) == 2, "sum.packed", "activations", lhs.at)
            self.row_index(lhs.indices[0], p.dims[0], False)
            self.use(lhs.indices[1], p.dims[1], var, True)
        require(not by_row(rhs) and rhs.name not in self.kernel.locals, "sum.columns", "weights", rhs.at)
        p = self.param(rhs)
        require(len(p.dims) >= 2, "access.rank", "rank", rhs.at)
        if len(p.dims) == 3:
            require(rhs.indices[0].kind == "expert", "access.row", "expert", rhs.at)
            self.row_index(rhs.indices[0], p.dims[0], True)
        self.use(rhs.indices[-2], p.dims[-2], column, True)
        self.use(rhs.indices[-1], p.dims[-1], var, True)


def check_call(program, e):
    if e.name in BUILTINS:
        arity = BUILTINS[e.name]
    else:
        require(e.known, "fn.unknown", e.name, e.at)
        arity = len(program.fns[e.name].params)
    require(len(e.args) == arity, "fn.arity", e.name, e.at)


def check_fn(program, fn):
    names = set(fn.params)

    def visit(e):
        require(e.op != "name" or e.name in names, "name.unknown", e.name, e.at)
        if e.op == "call":
            check_call(program, e)
        for a in e.args:
            visit(a)

    for name, value in fn.lets:
        visit(value)
        names.add(name)
    visit(fn.result)


def check(program):
    """The program with its annotations, or QnError."""
    for fn in program.fns.values():
        check_fn(program, fn)
    for kernel in program.kernels.values():
        KernelCheck(program, kernel).run()
    return program


def load(text):
    """Parsed and checked; raises QnError."""
    return check(parse(text))


__all__ = ["check", "load", "COMPARISONS"]
