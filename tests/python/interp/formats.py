"""Bit-exact conversions and the decode of 4-bit operands (LANGUAGE.md, numerics), in numpy."""
import numpy as np


def to_bits(values, dtype):
    """fp32 or fp64 numbers as the little-endian bytes of an array of `dtype`, rounded to nearest even."""
    values = np.asarray(values, np.float32)
    if dtype == "f32":
        return values.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "f16":
            return values.astype(np.float16).tobytes()
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    quiet = (bits >> np.uint64(16)) | np.uint64(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16).tobytes()


def from_bits(raw, dtype):
    if dtype == "f32":
        return np.frombuffer(raw, np.float32)
    if dtype == "f16":
        return np.frombuffer(raw, np.float16).astype(np.float32)
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to(values, dtype):
    shape = np.shape(values)
    return from_bits(to_bits(values, dtype), dtype).reshape(shape)


def scale_values(raw, kind):
    """The scales of a codec as fp32."""
    if kind != "e8m0":
        return from_bits(raw, kind)
    exponents = np.frombuffer(raw, np.uint8).astype(np.int32)
    with np.errstate(invalid="ignore"):
        return np.where(exponents == 255, np.nan, np.ldexp(1.0, exponents - 127)).astype(np.float32)


def decode(codec, packed, scales, zeros, shape, block, state, dtype):
    """One expert's [N, K] weights as fp64, from bitsandbytes-order bytes: (table[code] - zero) * scale in fp32, rounded to the
    quantization state's dtype, then to the activations'."""
    n, k = shape
    data = np.frombuffer(packed, np.uint8)
    high, low = data >> 4, data & 15
    codes = np.stack([high, low] if codec.high_first else [low, high], axis=1).reshape(-1)
    group = np.arange(n * k) // block
    values = np.array(codec.table, np.float32)[codes]
    if codec.zero:
        values = values - np.frombuffer(zeros, np.uint8).astype(np.float32)[group]
    with np.errstate(all="ignore"):
        values = values * scale_values(scales, codec.scale)[group]
    return round_to(round_to(values, state), dtype).reshape(n, k).astype(np.float64)


def half_ulp(values, dtype):
    """Half the distance of neighbouring numbers of `dtype` at |values|."""
    digits, smallest = {"f32": (24, -125), "bf16": (8, -125), "f16": (11, -13)}[dtype]
    exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))[1]
    return np.ldexp(1.0, np.maximum(exponent, smallest) - digits - 1)
