"""NF4 in Triton, written as a capable Triton user would: a grouped matmul with the decoding fused into its prologue, autotuned over
a few tile shapes and two ways to look a code up, and a kernel that decodes a whole stack.

Decoding is exact: table[code] * absmax in fp32, one rounding to bfloat16. Needs K a multiple of 64 and blocks of 64."""

import os

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _lookup(code, table, LOOKUP: tl.constexpr):
    """table[code], code 0..15: by loads that hit L1, or by 15 selects on the code's bits."""
    if LOOKUP == "load":
        return tl.load(table + code)
    b0, b1, b2, b3 = (code & 1) != 0, (code & 2) != 0, (code & 4) != 0, (code & 8) != 0
    p0 = tl.where(b0, -0.6961928009986877, -1.0)
    p1 = tl.where(b0, -0.39491748809814453, -0.5250730514526367)
    p2 = tl.where(b0, -0.18477343022823334, -0.28444138169288635)
    p3 = tl.where(b0, 0.0, -0.09105003625154495)
    p4 = tl.where(b0, 0.16093020141124725, 0.07958029955625534)
    p5 = tl.where(b0, 0.33791524171829224, 0.24611230194568634)
    p6 = tl.where(b0, 0.5626170039176941, 0.44070982933044434)
    p7 = tl.where(b0, 1.0, 0.7229568362236023)
    low = tl.where(b2, tl.where(b1, p3, p2), tl.where(b1, p1, p0))
    high = tl.where(b2, tl.where(b1, p7, p6), tl.where(b1, p5, p4))
    return tl.where(b3, high, low)


@triton.jit
def _dequantize(codes, absmax, table, out, count, LOOKUP: tl.constexpr, BYTES: tl.constexpr):
    """out: int32 [count], each the two bfloat16 values of one byte of codes."""
    at = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    inside = at < count
    byte = tl.load(codes + at, mask=inside, other=0).to(tl.int32)
    scale = tl.load(absmax + at // 32, mask=inside, other=0.0)
    first = (_lookup(byte >> 4, table, LOOKUP) * scale).to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32)
    second = (_lookup(byte & 15, table, LOOKUP) * scale).to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32)
    tl.store(out + at, (second << 16) | (first & 0xFFFF), mask=inside)


def dequantize(codes, absmax, table, out):
    """Fills out (bfloat16, contiguous) with the decoded codes; codes and absmax are flat or stacked, contiguous."""
    count = codes.numel()
    block = 128 if INTERPRETED else 1024
    _dequantize[(triton.cdiv(count, block),)](codes, absmax, table, out.view(torch.int32), count, LOOKUP="load", BYTES=block, num_warps=4)
    return out


@triton.jit
def _grouped(x, codes, absmax, table, offsets, out, N, K, E, BUCKET,
             E2: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, LOOKUP: tl.constexpr, SWAP: tl.constexpr):  # fmt: skip
    """out[r, n] = sum(k) x[r, k] * w[expert of r, n, k]; rows [offsets[e], offsets[e + 1]) belong to expert e.

    One program per tile of BM rows and BN columns; SWAP makes the decoded weights the first operand of the product, which tensor
    cores can take from registers.
    """
    tiles_n = tl.cdiv(N, BN)
    tile_m, tile_n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    # Which expert this tile belongs to: tiles of BM rows are counted expert by expert. No host needs the counts.
    experts = tl.arange(0, E2)
    begin = tl.load(offsets + experts, mask=experts < E, other=0)
    end = tl.load(offsets + experts + 1, mask=experts < E, other=0)
    tiles = (end - begin + BM - 1) // BM
    ends = tl.cumsum(tiles, 0)
    if tile_m >= tl.sum(tiles, 0):
        return
    expert = tl.sum((ends <= tile_m).to(tl.int32), 0)
    before = tl.sum(tl.where(experts == expert, ends - tiles, 0), 0)
    rows = tl.load(offsets + expert) + (tile_m - before) * BM + tl.arange(0, BM)
    live = rows < tl.load(offsets + expert + 1)
    columns = tile_n * BN + tl.arange(0, BN)
    inside = columns < N

    x_rows = x + rows.to(tl.int64)[:, None] * K + tl.arange(0, BK)[None, :]
    w_rows = codes + expert.to(tl.int64) * N * (K // 2) + columns.to(tl.int64)[:, None] * (K // 2) + tl.arange(0, BK // 2)[None, :]
    scales = absmax + expert.to(tl.int64) * N * (K // 64) + columns.to(tl.int64)[:, None] * (K // 64) + tl.arange(0, BK // 64)[None, :]
    acc = tl.zeros((BN, BM) if SWAP else (BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        a = tl.load(x_rows + k, mask=live[:, None], other=0.0)
        byte = tl.load(w_rows + k // 2, mask=inside[:, None], other=0).to(tl.int32)
        scale = tl.load(scales + k // 64, mask=inside[:, None], other=0.0)
        pairs = tl.join(_lookup(byte >> 4, table, LOOKUP), _lookup(byte & 15, table, LOOKUP))
        w = tl.reshape(tl.reshape(pairs, (BN, BK // 64, 64)) * scale[:, :, None], (BN, BK)).to(x.dtype.element_ty)
        acc = tl.dot(w, tl.trans(a), acc) if SWAP else tl.dot(a, tl.trans(w), acc)
    y = (tl.trans(acc) if SWAP else acc).to(out.dtype.element_ty)
    tl.store(out + rows.to(tl.int64)[:, None] * N + columns[None, :], y, mask=live[:, None] & inside[None, :])


def _config(bm, bn, bk, warps, stages, lookup, swap):
    return triton.Config({"BM": bm, "BN": bn, "BK": bk, "LOOKUP": lookup, "SWAP": swap}, num_warps=warps, num_stages=stages)


CONFIGS = [
    _config(16, 64, 128, 4, 4, "load", False), _config(16, 128, 64, 4, 4, "where", True), _config(16, 128, 128, 8, 3, "load", True),
    _config(32, 128, 64, 4, 4, "where", True), _config(64, 128, 64, 4, 3, "where", True), _config(64, 128, 64, 8, 3, "load", False),
    _config(128, 128, 64, 8, 3, "where", True), _config(128, 128, 64, 8, 3, "load", False), _config(128, 256, 64, 8, 3, "where", False),
    _config(256, 128, 64, 8, 3, "where", True),
]  # fmt: skip


def _sensible(configs, arguments, **_):
    """Tiles that fit the rows per expert and divide K; a config that does neither would only cost tuning time."""
    bucket, k = arguments["BUCKET"], arguments["K"]
    fits = [c for c in configs if k % c.kwargs["BK"] == 0 and (c.kwargs["BM"] <= max(16, bucket))]
    largest = max(c.kwargs["BM"] for c in fits)
    return [c for c in fits if c.kwargs["BM"] * 4 >= largest][-5:]


_tuned = triton.autotune(CONFIGS, key=["N", "K", "BUCKET"], prune_configs_by={"early_config_prune": _sensible})(_grouped)


def grouped(x, stack, offsets, rows):
    """bfloat16 [R, N] of x bfloat16 [R, K], sorted by expert; offsets int32 [E + 1] on the device. Never waits for the device."""
    n, k, experts = stack.n, stack.k, stack.experts
    out = torch.empty(rows, n, dtype=torch.bfloat16, device=x.device)
    bucket = 1 << max(0, (rows // experts)).bit_length()  # rows per expert, rounded up to a power of two
    common = (x, stack.codes, stack.absmax, stack.table, offsets, out, n, k, experts, bucket)
    grid = lambda c: ((triton.cdiv(rows, c["BM"]) + min(experts, rows)) * triton.cdiv(n, c["BN"]),)  # noqa: E731
    fixed = {"E2": triton.next_power_of_2(experts)}
    _tuned[grid](*common, **fixed)
    return out


def interpreted(x, stack, offsets, swap):
    """The kernel on one small tile shape under TRITON_INTERPRET=1, whose bfloat16 product is wrong: x and the result are float32."""
    out = torch.full((x.shape[0], stack.n), float("nan"))
    tiles = triton.cdiv(x.shape[0], 16) + stack.experts
    _grouped[(tiles * triton.cdiv(stack.n, 32),)](
        x, stack.codes, stack.absmax, stack.table, offsets, out, stack.n, stack.k, stack.experts, 1,
        E2=triton.next_power_of_2(stack.experts), BM=16, BN=32, BK=64, LOOKUP="where" if swap else "load", SWAP=swap,
    )  # fmt: skip
    return out
