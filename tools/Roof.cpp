// See Roof.h.
#include "tools/Roof.h"
#include "codegen/gpu/CostModel.h"
#include "runtime/launch/ParallelFor.h"
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <unistd.h>
#include <vector>
#ifdef __x86_64__
#include <immintrin.h>
#include <sys/syscall.h>
#endif

namespace quern::tools {
namespace {
using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Each loop keeps eight independent sums, which hides the latency of two units of four cycles, and gives the
// floating-point operations that it made. The sums reach `sink`, so that no compiler drops them.
constexpr int rounds = 4096, sums = 8;
using Loop = double (*)(float *sink);

double scalarLoop(float *sink) {
  float acc[sums] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (int i = 0; i < rounds; ++i)
    for (float &a : acc) a = a * 0.5f + 1.0f;
  for (float a : acc) *sink += a;
  return 2.0 * rounds * sums;
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) double avx2Loop(float *sink) {
  __m256 acc[sums], half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(*sink);
  for (auto &a : acc) a = one;
  for (int i = 0; i < rounds; ++i)
    for (auto &a : acc) a = _mm256_fmadd_ps(a, half, one);
  for (auto &a : acc) *sink += _mm256_cvtss_f32(a);
  return 16.0 * rounds * sums;
}

__attribute__((target("avx512f"))) double avx512Loop(float *sink) {
  __m512 acc[sums], half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(*sink);
  for (auto &a : acc) a = one;
  for (int i = 0; i < rounds; ++i)
    for (auto &a : acc) a = _mm512_fmadd_ps(a, half, one);
  for (auto &a : acc) *sink += _mm512_cvtss_f32(a);
  return 32.0 * rounds * sums;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16Loop(float *sink) {
  __m512 acc[sums];
  __m512i bits = _mm512_set1_epi32(0x3f803f80); // pairs of bf16 ones
  __m512bh ones;
  std::memcpy(&ones, &bits, sizeof(ones));
  for (auto &a : acc) a = _mm512_set1_ps(*sink);
  for (int i = 0; i < rounds; ++i)
    for (auto &a : acc) a = _mm512_dpbf16_ps(a, ones, ones);
  for (auto &a : acc) *sink += _mm512_cvtss_f32(a);
  return 64.0 * rounds * sums;
}

// Tiles of 16 x 32 bf16 times 32 x 16 into 16 x 16 fp32: 16384 operations.
__attribute__((target("amx-tile,amx-bf16"))) double amxLoop(float *sink) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t columnBytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 6; ++i) config.columnBytes[i] = 64, config.rows[i] = 16;
  alignas(64) float tile[16 * 16] = {};
  _tile_loadconfig(&config);
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  _tile_loadd(4, tile, 64), _tile_loadd(5, tile, 64);
  for (int i = 0; i < rounds / 16; ++i) {
    _tile_dpbf16ps(0, 4, 5), _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5), _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, tile, 64);
  _tile_release();
  *sink += tile[0];
  return 16384.0 * 4 * (rounds / 16);
}
#endif

struct Arithmetic {
  Loop loop;
  const char *name;
};

/// The instruction of a schedule's line, if this CPU has it.
Arithmetic arithmeticOf(const std::string &schedule) {
#ifdef __x86_64__
  auto says = [&](const char *field) { return schedule.find(field) != std::string::npos; };
  constexpr int requestPermission = 0x1023, tileData = 18; // arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
  if (says("isa=amx") && says("dot=bf16") && !says("tile=0") &&
      syscall(SYS_arch_prctl, requestPermission, tileData) == 0)
    return {amxLoop, "bf16 tiles, AMX"};
  if (says("dot=bf16") && __builtin_cpu_supports("avx512bf16"))
    return {bf16Loop, "bf16 dot products, AVX-512"};
  if (says("lanes=16") && __builtin_cpu_supports("avx512f"))
    return {avx512Loop, "fp32 multiply-add, AVX-512"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {avx2Loop, "fp32 multiply-add, AVX2"};
#endif
  return {scalarLoop, "fp32 multiply and add, as the compiler vectorises it"};
}

size_t largeBytes() {
  int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE); // 0 or -1 where it is not known
  return std::clamp<size_t>(cache > 0 ? 4 * size_t(cache) : size_t(256) << 20, size_t(64) << 20,
                            size_t(1) << 30);
}

/// Memory of its own, touched once, shared by the two users below.
std::vector<uint64_t> &largeBuffer() {
  static std::vector<uint64_t> buffer(largeBytes() / 8, 1);
  return buffer;
}

/// All threads work at once for `seconds`; the sum of their rates.
double parallelRate(double seconds, const std::function<double(int)> &work) {
  int threads = numThreads();
  std::vector<double> rates(size_t(threads), 0.0);
  parallelFor(threads, threads, [&](int64_t task, int) {
    double done = 0;
    Clock::time_point start = Clock::now();
    do done += work(int(task));
    while (secondsSince(start) < seconds);
    rates[size_t(task)] = done / secondsSince(start);
  });
  double total = 0;
  for (double rate : rates) total += rate;
  return total;
}

/// Every thread reads its part of the buffer, in pieces, round and round.
class Reader {
  static constexpr size_t piece = size_t(1) << 17; // of 8 bytes
  std::vector<size_t> at;
  std::vector<uint64_t> sinks;

public:
  Reader() : at(size_t(numThreads()) * 8, 0), sinks(at.size(), 0) {} // a cache line each
  double operator()(int thread) {
    auto &buffer = largeBuffer();
    size_t part = buffer.size() / size_t(numThreads()), slot = size_t(thread) * 8;
    const uint64_t *begin = buffer.data() + size_t(thread) * part + at[slot];
    size_t count = std::min(piece, part - at[slot]);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += begin[i];
    sinks[slot] += sum;
    at[slot] = at[slot] + count < part ? at[slot] + count : 0;
    return double(count * 8);
  }
};

Roof cpuRoof(const std::string &schedule) {
  Arithmetic arithmetic = arithmeticOf(schedule);
  std::vector<float> sinks(size_t(numThreads()) * 16, 1.0f);
  Roof roof;
  Reader reader;
  // The best of many short windows: a neighbour on the machine lowers a rate, nothing raises it.
  for (int i = 0; i < 60; ++i) {
    double flops =
        parallelRate(0.003, [&](int thread) { return arithmetic.loop(&sinks[size_t(thread) * 16]); });
    roof.tflops = std::max(roof.tflops, flops * 1e-12);
    roof.gbs = std::max(roof.gbs, parallelRate(0.005, std::ref(reader)) * 1e-9);
  }
  roof.arithmetic = arithmetic.name;
  roof.source =
      fmt::format("measured by this command on {} thread{}", numThreads(), numThreads() == 1 ? "" : "s");
  return roof;
}
} // namespace

double Roof::at(double flopsPerByte) const { return std::min(tflops, gbs * 1e-3 * flopsPerByte); }

Roof roofOf(const tune::DeviceIdentity &device, const std::string &schedule) {
  if (device.arch == "cpu") return cpuRoof(schedule);
  if (device.arch != "sm_90a") return {};
  bool h200 = device.name.find("H200") != std::string::npos || device.name.find("h200") != std::string::npos;
  const gpu::Device *known = gpu::findDevice(h200 ? "h200" : "h100");
  Roof roof;
  constexpr double flopsPerClock = 4096; // dense bf16 of one multiprocessor, CostModel.h
  roof.tflops = flopsPerClock * double(device.units > 0 ? device.units : known->sms) * known->clockGHz * 1e-3;
  roof.gbs = known->hbmTBs * 1000;
  roof.arithmetic = "dense bf16 tensor cores, sustained";
  roof.source = fmt::format("stated for {} in codegen/gpu/CostModel.h", known->name);
  return roof;
}

void flushCaches() {
  auto &buffer = largeBuffer();
  constexpr size_t chunk = size_t(1) << 17;
  parallelFor(int64_t((buffer.size() + chunk - 1) / chunk), [&](int64_t task, int) {
    size_t begin = size_t(task) * chunk, end = std::min(begin + chunk, buffer.size());
    for (size_t i = begin; i < end; ++i) ++buffer[i];
  });
}

} // namespace quern::tools
