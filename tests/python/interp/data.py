"""Random arguments for a checked kernel, for both implementations: numpy values here, JSON for `quern run-batch`."""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from . import formats

DTYPES = ("f32", "bf16", "f16")


@dataclass
class Tensor:
    dtype: str
    raw: bytes
    shape: tuple

    @property
    def values(self):
        return formats.from_bits(self.raw, self.dtype).reshape(self.shape).astype(np.float64)

    def matrix(self, expert, dtype):
        return self.values if expert is None else self.values[expert]

    def json(self):
        return {"tensor": self.raw.hex(), "dtype": self.dtype, "shape": list(self.shape)}


@dataclass
class Packed:
    codec: object
    codes: list  # of bytes, one per expert
    scales: list
    zeros: Optional[list]
    shape: tuple  # [N, K] or [E, N, K]
    block: int
    state: str
    layout: str

    def matrix(self, expert, dtype):
        i = expert or 0
        zeros = self.zeros[i] if self.zeros else None
        return formats.decode(self.codec, self.codes[i], self.scales[i], zeros, self.shape[-2:], self.block, self.state, dtype)

    def json(self):
        out = {"packed": b"".join(self.codes).hex(), "codec": self.codec.name, "scales": b"".join(self.scales).hex(),
               "shape": list(self.shape), "block": self.block, "dtype": self.state, "layout": self.layout}
        if self.zeros:
            out["zeros"] = b"".join(self.zeros).hex()
        return out


@dataclass
class Routing:
    experts: int
    top_k: int
    ids: list
    weights: list

    def json(self):
        return {"experts": self.experts, "top_k": self.top_k, "ids": self.ids, "weights": self.weights}


class DataMaker:
    """`special`: now and then NaN, infinity, zero and subnormal values among activations and scales."""

    def __init__(self, rng, program, kernel, dims, special=False, layout=None):
        self.rng, self.program, self.kernel, self.dims = rng, program, kernel, dict(dims)
        self.special, self.layout = special, layout
        self.act = rng.choice(DTYPES)
        self.integers = rng.random() < 0.3
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.top_k = rng.randint(1, 3)
        if kernel.routing:
            self.dims["R"] = kernel.routing.dims[0].value(self.dims) * self.top_k

    def run(self):
        """name -> argument, in parameter order."""
        make = {"tensor": self.tensor, "packed": self.packed, "routing": self.route, "scalar": self.scalar}
        return {p.name: make[p.kind](p) for p in self.kernel.params}

    def shape(self, p):
        return tuple(d.value(self.dims) for d in p.dims)

    def scalar(self, p):
        return self.rng.choice([0.0, 1.0, -1.5, 0.1, 3.25, self.rng.gauss(0, 1)])

    def tensor(self, p):
        shape = self.shape(p)
        count = int(np.prod(shape))
        values = self.numpy.integers(-3, 4, count) if self.integers else self.numpy.standard_normal(count)
        values = values.astype(np.float32)
        if self.special and count and self.rng.random() < 0.5:
            for _ in range(self.rng.randint(1, 3)):
                values[self.rng.randrange(count)] = self.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 3e4, 1e-42])
        dtype = {"act": self.act, "float": self.rng.choice(DTYPES)}.get(p.type, p.type)
        return Tensor(dtype, formats.to_bits(values, dtype), shape)

    def packed(self, p):
        shape = self.shape(p)
        codec = self.program.codecs[p.type]
        experts = shape[0] if len(shape) == 3 else 1
        size = shape[-2] * shape[-1]
        blocks = [b for b in (32, 64, 128, 256, 1024, 4096) if experts == 1 or size % b == 0]
        block = codec.block if codec.block in blocks and self.rng.random() < 0.5 else self.rng.choice(blocks)
        count = -(-size // block)
        codes, scales, zeros = [], [], []
        for _ in range(experts):
            codes.append(self.numpy.integers(0, 256, size // 2, np.uint8).tobytes())
            scales.append(self.scales(codec, count))
            zeros.append(self.numpy.integers(0, 16, count).astype(np.uint8).tobytes())
        layout = self.layout or self.rng.choice(("bnb", "cpu", "gpu"))
        return Packed(codec, codes, scales, zeros if codec.zero else None, shape, block, self.rng.choice(DTYPES), layout)

    def scales(self, codec, count):
        if codec.scale == "e8m0":
            raw = self.numpy.integers(124, 130, count).astype(np.uint8)
            if self.special and self.rng.random() < 0.2:
                raw[self.rng.randrange(count)] = self.rng.choice([0, 1, 254, 255])
            return raw.tobytes()
        values = np.exp2(self.numpy.integers(-2, 3, count)) if self.integers else self.numpy.uniform(0.05, 2.0, count)
        values = values.astype(np.float32)
        if self.special and self.rng.random() < 0.2:
            values[self.rng.randrange(count)] = self.rng.choice([np.nan, np.inf, 0.0, 1e-40, 3e38])
        return formats.to_bits(values, codec.scale)

    def route(self, p):
        tokens, experts = self.shape(p)
        pool = list(range(experts)) * 4 + [-1, experts, -7]
        if self.rng.random() < 0.2:  # all on one expert
            pool = [self.rng.randrange(experts)]
        ids = [[self.rng.choice(pool) for _ in range(self.top_k)] for _ in range(tokens)]
        weights = [[float(np.float32(self.rng.uniform(-0.5, 1.5))) for _ in range(self.top_k)] for _ in range(tokens)]
        return Routing(experts, self.top_k, ids, weights)


def choose_dims(rng, kernel):
    """Small sizes that satisfy every division, an even K of packed operands, and blocks that end with their expert."""
    symbols = {}
    for p in kernel.params + kernel.outputs:
        for d in p.dims or []:
            if d.symbol and d.symbol != "R":
                symbols[d.symbol] = np.lcm(symbols.get(d.symbol, 1), d.factor.denominator)
    dims = {s: int(m) * rng.randint(1, max(1, 24 // int(m))) for s, m in symbols.items()}
    if kernel.routing:
        tokens, experts = (d.symbol for d in kernel.routing.dims)
        dims[tokens], dims[experts] = rng.choice([0, 1, 2, 3, 5, 8]), rng.choice([1, 1, 2, 3, 5])
    elif kernel.rows.symbol and not any(kernel.rows.symbol in [d.symbol for d in p.dims] for p in kernel.params if p.kind == "packed"):
        dims[kernel.rows.symbol] = int(symbols[kernel.rows.symbol]) * rng.choice([0, 1, 2, 5])
    for p in kernel.params:
        if p.kind != "packed":
            continue
        n, k = p.dims[-2:]
        experts = p.dims[0].value(dims) if len(p.dims) == 3 else 1
        for _ in range(64):  # multiply symbols by two until the operand is legal
            size = n.value(dims) * k.value(dims)
            if k.value(dims) % 2 == 0 and (experts == 1 or size % 32 == 0):
                break
            grown = k if k.symbol and (k.value(dims) % 2 or rng.random() < 0.5 or not n.symbol) else n
            if not grown.symbol:
                return None
            dims[grown.symbol] *= 2
        else:
            return None
    return dims if all(v <= 1 << 12 for v in dims.values()) else None


__all__ = ["DataMaker", "choose_dims"]
