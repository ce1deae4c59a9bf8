// Starts the emulator's tests: a SIGILL handler of the program's own first, the emulator in front of it, then
// the tests.
#include "AmxTestSupport.h"
#include <cstdio>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace quern::amxtest {

bool nativeHardware = false;
OldHandler oldHandler;

void onOldSigill(int, siginfo_t *info, void *context) {
  auto &rip = static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP];
  oldHandler.calls = oldHandler.calls + 1;
  oldHandler.rip = static_cast<uint64_t>(rip);
  oldHandler.code = info->si_code;
  if (info->si_code > 0) rip += oldHandler.skipBytes;
}

} // namespace quern::amxtest

int main(int argc, char **argv) {
  using namespace quern;
  testing::InitGoogleTest(&argc, argv);
  struct sigaction action = {};
  action.sa_sigaction = amxtest::onOldSigill;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, nullptr);

  amxtest::nativeHardware = hasAmxHardware();
  Status status = installAmxEmulator();
  if (static_cast<bool>(status) == amxtest::nativeHardware) {
    std::fprintf(stderr, "installAmxEmulator: %s\n",
                 status ? "accepted a CPU with AMX" : status.error().message.c_str());
    return 1;
  }
  if (amxtest::nativeHardware) {
    const long requestPermission = 0x1023,
               tileData = 18; // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    if (syscall(SYS_arch_prctl, requestPermission, tileData))
      return std::perror("arch_prctl(ARCH_REQ_XCOMP_PERM)"), 1;
    if (status = installAmxEmulator(/*force=*/true); !status) return 1;
  }
  return RUN_ALL_TESTS();
}
