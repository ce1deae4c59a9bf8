// What Quern's own device code (kernels/*.cu) is written in. The same text is compiled by NVRTC when a GPU is
// used and by clang (-x cuda --cuda-device-only -nocudainc -nocudalib) for the simulator, so no CUDA header
// is included: what the two compilers spell differently, and the conversions that must give the same bits in
// both, stand here. Kernels are one-dimensional, `extern "C"`, and never spin on memory.
#pragma once

#ifndef __CUDACC_RTC__
#ifdef __clang__
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(threads) __attribute__((launch_bounds(threads)))
#endif
#endif
#ifdef __clang__
#define QUERN_DEVICE static __device__ inline __attribute__((always_inline, unused))
#else
#define QUERN_DEVICE static __device__ __forceinline__
#endif

namespace quern_device {

using int64 = long long;
using uint64 = unsigned long long;
using uint32 = unsigned int;
using uint16 = unsigned short;
using uint8 = unsigned char;
static_assert(sizeof(int64) == 8 && sizeof(uint32) == 4 && sizeof(uint16) == 2, "data model");

/// 16 bytes that move as one access.
struct alignas(16) Vector16 {
  uint32 words[4];
};

// Names of quern::DType and syntax::ScaleType, in their order.
enum : int { F32 = 0, BF16 = 1, F16 = 2 };
enum : int { ScaleF32 = 0, ScaleBF16 = 1, ScaleE8M0 = 2 };

constexpr uint32 fullWarp = 0xffffffffu;

#if defined(__clang__)
QUERN_DEVICE int threadIndex() { return __nvvm_read_ptx_sreg_tid_x(); }
QUERN_DEVICE int blockIndex() { return __nvvm_read_ptx_sreg_ctaid_x(); }
QUERN_DEVICE int gridSize() { return __nvvm_read_ptx_sreg_nctaid_x(); }
QUERN_DEVICE void syncBlock() { __syncthreads(); }
QUERN_DEVICE void syncWarp() { __nvvm_bar_warp_sync(fullWarp); }
QUERN_DEVICE uint32 warpBallot(bool predicate) { return __nvvm_vote_ballot_sync(fullWarp, predicate); }
QUERN_DEVICE int warpShuffle(int value, int lane) {
  return __nvvm_shfl_sync_idx_i32(fullWarp, value, lane, 31);
}
QUERN_DEVICE int warpShuffleUp(int value, int delta) {
  return __nvvm_shfl_sync_up_i32(fullWarp, value, delta, 0);
}
QUERN_DEVICE int warpShuffleXor(int value, int mask) {
  return __nvvm_shfl_sync_bfly_i32(fullWarp, value, mask, 31);
}
QUERN_DEVICE int populationCount(uint32 bits) { return __builtin_popcount(bits); }
QUERN_DEVICE int leadingZeros(uint32 bits) { return bits ? __builtin_clz(bits) : 32; }
QUERN_DEVICE float asFloat(uint32 bits) { return __builtin_bit_cast(float, bits); }
QUERN_DEVICE uint32 asBits(float value) { return __builtin_bit_cast(uint32, value); }
QUERN_DEVICE float multiplyAdd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
QUERN_DEVICE int threadIndex() { return threadIdx.x; }
QUERN_DEVICE int blockIndex() { return blockIdx.x; }
QUERN_DEVICE int gridSize() { return gridDim.x; }
QUERN_DEVICE void syncBlock() { __syncthreads(); }
QUERN_DEVICE void syncWarp() { __syncwarp(); }
QUERN_DEVICE uint32 warpBallot(bool predicate) { return __ballot_sync(fullWarp, predicate); }
QUERN_DEVICE int warpShuffle(int value, int lane) { return __shfl_sync(fullWarp, value, lane); }
QUERN_DEVICE int warpShuffleUp(int value, int delta) { return __shfl_up_sync(fullWarp, value, delta); }
QUERN_DEVICE int warpShuffleXor(int value, int mask) { return __shfl_xor_sync(fullWarp, value, mask); }
QUERN_DEVICE int populationCount(uint32 bits) { return __popc(bits); }
QUERN_DEVICE int leadingZeros(uint32 bits) { return __clz(bits); }
QUERN_DEVICE float asFloat(uint32 bits) { return __uint_as_float(bits); }
QUERN_DEVICE uint32 asBits(float value) { return __float_as_uint(value); }
QUERN_DEVICE float multiplyAdd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
#endif

// Programmatic dependent launch (PTX ISA, griddepcontrol). A kernel that says first that the next one may
// start loses nothing: the next one's blocks come when there is room, and wait where they read what this one
// writes. On the simulator kernels run one after another.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && !defined(__clang__)
QUERN_DEVICE void letNextStart() { asm volatile("griddepcontrol.launch_dependents;"); }
QUERN_DEVICE void waitForPrevious() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
QUERN_DEVICE void letNextStart() {}
QUERN_DEVICE void waitForPrevious() {}
#endif

QUERN_DEVICE int laneIndex() { return threadIndex() & 31; }
QUERN_DEVICE int warpIndex() { return threadIndex() >> 5; }
QUERN_DEVICE bool aligned16(const void *p) { return !(reinterpret_cast<uint64>(p) & 15); }

// Conversions as in compiler/support/DType: round to nearest even, NaN stays NaN (quiet), overflow gives
// infinity, subnormals are kept. By hand, so that the simulator's bits are the GPU's.
QUERN_DEVICE uint16 toBF16(float value) {
  uint32 bits = asBits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16(bits >> 16 | 0x40);
  return uint16((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
QUERN_DEVICE float fromBF16(uint16 bits) { return asFloat(uint32(bits) << 16); }

QUERN_DEVICE uint16 toF16(float value) {
  uint32 bits = asBits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return uint16(sign | 0x7c00u); // at least 65520
  if (magnitude >= 0x38800000u)                                // normal: rebias 127 to 15
    return uint16(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13));
  if (magnitude < 0x33000000u) return uint16(sign); // below half of the smallest subnormal
  uint32 exponent = magnitude >> 23, mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  uint32 shift = 126 - exponent, kept = mantissa >> shift; // 14..24
  uint32 rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return uint16(sign | (kept + (rest > half || (rest == half && (kept & 1)))));
}
QUERN_DEVICE float fromF16(uint16 bits) {
  uint32 sign = uint32(bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ffu;
  if (exponent == 31) return asFloat(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return asFloat(sign | (exponent + 112) << 23 | mantissa << 13);
  float value = float(mantissa) * 5.9604644775390625e-8f; // 2^-24: exact
  return sign ? -value : value;
}

/// Two values as a pair of 16-bit words: toHalfWord of each, NaN payloads apart. By the GPU's own instruction
/// there, where a kernel does little else.
QUERN_DEVICE uint32 toHalfPair(int type, float low, float high) {
#ifdef __clang__
  return type == BF16 ? toBF16(low) | uint32(toBF16(high)) << 16 : toF16(low) | uint32(toF16(high)) << 16;
#else
  uint32 pair;
  if (type == BF16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}
QUERN_DEVICE uint16 toHalfWord(int type, float value) { return type == BF16 ? toBF16(value) : toF16(value); }
QUERN_DEVICE float fromHalfWord(int type, uint16 bits) {
  return type == BF16 ? fromBF16(bits) : fromF16(bits);
}
QUERN_DEVICE float roundTo(int type, float value) {
  return type == F32 ? value : fromHalfWord(type, toHalfWord(type, value));
}
QUERN_DEVICE float loadAs(int type, const void *data, int64 index) {
  if (type == F32) return static_cast<const float *>(data)[index];
  return fromHalfWord(type, static_cast<const uint16 *>(data)[index]);
}
/// 2^(bits-127); 255 is NaN, 0 the subnormal 2^-127 (OCP Microscaling v1.0, 5.4.1).
QUERN_DEVICE float fromE8M0(uint8 bits) {
  return asFloat(bits == 255 ? 0x7fc00000u : bits ? uint32(bits) << 23 : 0x00400000u);
}

} // namespace quern_device
