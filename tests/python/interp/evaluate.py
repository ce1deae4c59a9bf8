"""fp64 evaluation of a checked kernel: whole arrays over all live rows at once."""
import math

import numpy as np

from . import formats

ERF = np.vectorize(math.erf, otypes=[np.float64])
ARITHMETIC = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
CONDITIONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal}


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


FUNCTIONS = {
    "min": np.minimum,
    "max": np.maximum,
    "clamp": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "exp": np.exp,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "erf": ERF,
}


class Evaluator:
    """`data`: parameter name -> Tensor, Packed, Routing or float of data.py."""

    def __init__(self, program, kernel, data, dims):
        self.program, self.kernel, self.data, self.dims = program, kernel, data, dims
        if kernel.routing:
            r = data[kernel.routing.name]
            pairs = [(e, t, w) for t, line in enumerate(r.ids) for e, w in zip(line, r.weights[t]) if 0 <= e < r.experts]
            pairs = [p for e in range(r.experts) for p in pairs if p[0] == e]  # by expert, else in order
            self.expert = np.array([p[0] for p in pairs], int)
            self.token = np.array([p[1] for p in pairs], int)
            self.weight = np.array([p[2] for p in pairs], np.float32).astype(np.float64)
            self.count, self.rows = len(pairs), len(r.ids) * r.top_k
        else:
            self.count = self.rows = kernel.rows.value(dims)
            self.expert = np.zeros(self.count, int)
        self.locals = {}

    def run(self):
        """Output name -> fp64 array."""
        outputs = {}
        for o in self.kernel.outputs:
            rows = self.rows if o.dims[0] == self.kernel.rows else o.dims[0].value(self.dims)
            outputs[o.name] = np.zeros((rows, o.dims[1].value(self.dims)))
        with np.errstate(all="ignore"):
            for stmt in self.kernel.stmts:
                self.ranges = {v: d.value(self.dims) for v, d in stmt.ranges.items()}
                self.column = stmt.indices[1].var
                value = np.broadcast_to(self.value(stmt.value, None), (self.count, self.ranges[self.column]))
                if stmt.target not in outputs:
                    self.locals[stmt.target] = value
                elif stmt.indices[0].kind == "token":
                    np.add.at(outputs[stmt.target], self.token, value)
                else:
                    outputs[stmt.target][: self.count] = value
        return outputs

    def row(self, index):
        return {"row": np.arange(self.count), "token": getattr(self, "token", None), "expert": self.expert}[index.kind]

    def columns(self, index):
        return index.mul * np.arange(self.ranges[index.var]) + index.offset.value(self.dims)

    def value(self, e, names):
        """An array that broadcasts to [rows, columns]."""
        if e.op == "number":
            return np.float64(e.number)
        if e.op == "name":
            return names[e.name] if names is not None else np.float64(np.float32(self.data[e.name]))
        if e.op == "weight":
            return self.weight[:, None]
        if e.op == "access":
            return self.access(e)
        if e.op == "sum":
            return self.sum(e, self.column)
        if e.op == "call" and e.name == "select":
            condition, yes, no = e.args
            a, b = (self.value(x, names) for x in condition.args)
            return np.where(CONDITIONS[condition.op](a, b), self.value(yes, names), self.value(no, names))
        args = [self.value(a, names) for a in e.args]
        if e.op == "neg":
            return -args[0]
        if e.op in ARITHMETIC:
            return ARITHMETIC[e.op](*args)
        if e.name in FUNCTIONS:
            return FUNCTIONS[e.name](*args)
        fn = self.program.fns[e.name]
        scope = dict(zip(fn.params, args))
        for name, let in fn.lets:
            scope[name] = self.value(let, scope)
        return self.value(fn.result, scope)

    def access(self, e):
        if e.name in self.locals:
            return self.locals[e.name][:, self.columns(e.indices[1])]
        array = self.data[e.name].values
        first = e.indices[0]
        if first.kind == "affine":
            return array[self.columns(first)][None, :]
        if array.ndim == 1:
            return array[self.row(first)][:, None]
        return array[self.row(first)][:, self.columns(e.indices[1])]

    def sum(self, e, column):
        """[rows, columns]: sum over k of lhs[row, k] * rhs[expert, column, k]."""
        lhs, rhs = e.args
        dtype = "f32"
        if lhs.op == "sum":
            left = self.sum(lhs, e.name)
        elif lhs.name in self.locals:
            left = self.locals[lhs.name]
        else:
            left, dtype = self.data[lhs.name].values[self.row(lhs.indices[0])], self.data[lhs.name].dtype
        out = np.zeros((self.count, self.ranges[column]))
        by_expert = len(rhs.indices) == 3
        for expert in sorted(set(self.expert.tolist())):
            rows = self.expert == expert
            weights = self.data[rhs.name].matrix(expert if by_expert else None, dtype)
            out[rows] = left[rows] @ weights.T
        return out


def evaluate(program, kernel, data, dims):
    return Evaluator(program, kernel, data, dims).run()
