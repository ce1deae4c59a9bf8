// A program that knows nothing of the emulator: works with LD_PRELOAD=libquern-amx-emulator.so
// QUERN_EMULATE_AMX=1, else dies of SIGILL. It sets a SIGILL handler of its own first, as Python's
// faulthandler and LLVM's tools do. With the argument "expect-sigill" that handler makes the exit status 0.
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  const bool expectSigill = argc > 1 && !std::strcmp(argv[1], "expect-sigill");
  std::signal(SIGILL, expectSigill ? [](int) { _exit(0); } : [](int) { _exit(3); });
  const bool permitted =
      syscall(SYS_arch_prctl, 0x1023, 18) == 0; // ARCH_REQ_XCOMP_PERM, XTILEDATA: only with AMX hardware
  if (permitted && expectSigill) return 0;

  alignas(64) uint8_t config[64] = {1};
  for (int t = 0; t < 3; ++t) config[16 + 2 * t] = 4, config[48 + t] = 1;
  uint16_t a[2] = {0x4000, 0x4040}, b[2] = {0x40A0, 0x40E0}; // 2, 3 and 5, 7
  float c = 100;
  _tile_loadconfig(config);
  _tile_loadd(0, &c, 4);
  _tile_loadd(1, a, 4);
  _tile_loadd(2, b, 4);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, &c, 4);
  _tile_release();

  using Count = uint64_t (*)(int);
  auto count = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "quern_amx_emulator_count"));
  const uint64_t dots = count ? count(7) : 0;
  std::printf("%g, %d tdpbf16ps emulated\n", c, static_cast<int>(dots));
  return c == 131 && (permitted || dots == 1) && !expectSigill ? 0 : 1;
}
