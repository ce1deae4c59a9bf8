// Everything that is not an emulated instruction belongs to somebody else: handlers before and after the
// emulator, and the default.
#include "AmxTestSupport.h"
#include <sys/syscall.h>
#include <unistd.h>

using namespace quern;
using namespace quern::amxtest;

namespace {

void ud2() { asm volatile("ud2"); }

/// True when a ud2 went to the handler that was installed before the emulator, and execution went on behind
/// it.
bool reachesOldHandler() {
  const uint64_t before = oldHandler.calls;
  uint64_t rip = 0;
  oldHandler.skipBytes = 2;
  asm volatile("lea 1f(%%rip), %0\n1: ud2" : "=&r"(rip)::"memory");
  return oldHandler.calls == before + 1 && oldHandler.rip == rip;
}

bool emulates() {
  TileConfig config, read;
  config.all(2, 8).apply();
  _tile_storeconfig(read.bytes);
  _tile_release();
  return !std::memcmp(config.bytes, read.bytes, 64);
}

struct AmxSignal : testing::Test {
  struct sigaction saved;
  void SetUp() override { ASSERT_EQ(0, sigaction(SIGILL, nullptr, &saved)); }
  void TearDown() override {
    ASSERT_EQ(0, sigaction(SIGILL, &saved, nullptr));
    EXPECT_TRUE(reachesOldHandler());
    EXPECT_TRUE(emulates());
  }
};

TEST_F(AmxSignal, InstallingTwiceChangesNothing) {
  ASSERT_TRUE(installAmxEmulator(nativeHardware));
  EXPECT_EQ(quern_amx_emulator_installed(), 1);
  EXPECT_TRUE(reachesOldHandler());
}

TEST_F(AmxSignal, Ud2ReachesTheHandlerFromBefore) {
  EXPECT_TRUE(reachesOldHandler());
  EXPECT_GT(oldHandler.code, 0);
}

TEST_F(AmxSignal, AnotherAmxInstructionReachesTheHandlerFromBefore) {
  QUERN_NEEDS_EMULATION();
  const uint64_t before = oldHandler.calls;
  oldHandler.skipBytes = 5;
  asm volatile("tdpbssd %tmm2, %tmm1, %tmm0");
  EXPECT_EQ(oldHandler.calls, before + 1);
}

/// The signal arrives when the next instruction is an AMX one: that instruction must run once, and the
/// handler be called once.
TEST_F(AmxSignal, ASentSignalIsNotTakenForATrap) {
  const uint64_t before = oldHandler.calls,
                 released = quern_amx_emulator_count(static_cast<int>(AmxKind::TileRelease));
  long result = SYS_tgkill;
  asm volatile("syscall\n tilerelease"
               : "+a"(result)
               : "D"(static_cast<long>(getpid())), "S"(syscall(SYS_gettid)), "d"(static_cast<long>(SIGILL))
               : "rcx", "r11", "memory");
  EXPECT_EQ(result, 0);
  EXPECT_EQ(oldHandler.calls, before + 1);
  EXPECT_LE(oldHandler.code, 0);
  EXPECT_EQ(quern_amx_emulator_count(static_cast<int>(AmxKind::TileRelease)),
            released + (nativeHardware ? 0 : 1));
}

TEST_F(AmxSignal, ALaterSigactionStandsBehindTheEmulator) {
  static volatile int calls;
  calls = 0;
  struct sigaction later = {}, seen;
  later.sa_sigaction = [](int signal, siginfo_t *info, void *context) {
    calls = calls + 1;
    onOldSigill(signal, info, context);
  };
  later.sa_flags = SA_SIGINFO;
  sigaddset(&later.sa_mask, SIGUSR1);
  ASSERT_EQ(0, sigaction(SIGILL, &later, &seen));
  EXPECT_EQ(seen.sa_sigaction, &onOldSigill);
  EXPECT_TRUE(emulates());
  ud2();
  EXPECT_EQ(calls, 1);
  ASSERT_EQ(0, sigaction(SIGILL, nullptr, &seen));
  EXPECT_EQ(seen.sa_sigaction, later.sa_sigaction);
  EXPECT_EQ(seen.sa_flags & SA_SIGINFO, SA_SIGINFO);
}

TEST_F(AmxSignal, ALaterSignalCallStandsBehindTheEmulator) {
  static volatile int calls;
  calls = 0;
  EXPECT_NE(std::signal(SIGILL, [](int) { calls = calls + 1; }), SIG_ERR);
  EXPECT_TRUE(emulates());
  raise(SIGILL);
  EXPECT_EQ(calls, 1);
}

TEST_F(AmxSignal, TheHandlersMaskAndFlagsHold) {
  static volatile bool usr1Blocked, illBlocked;
  struct sigaction later = {};
  later.sa_handler = [](int) {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    usr1Blocked = sigismember(&now, SIGUSR1);
    illBlocked = sigismember(&now, SIGILL);
  };
  sigaddset(&later.sa_mask, SIGUSR1);
  later.sa_flags = SA_NODEFER | SA_RESETHAND;
  ASSERT_EQ(0, sigaction(SIGILL, &later, nullptr));
  raise(SIGILL);
  EXPECT_TRUE(usr1Blocked);
  EXPECT_FALSE(illBlocked);
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  EXPECT_FALSE(sigismember(&now, SIGUSR1));
  struct sigaction seen;
  sigaction(SIGILL, nullptr, &seen);
  EXPECT_EQ(seen.sa_handler, SIG_DFL) << "SA_RESETHAND";
}

TEST_F(AmxSignal, OtherSignalsAreNotTouched) {
  auto handler = [](int) {};
  sighandler_t before = std::signal(SIGUSR2, handler);
  EXPECT_EQ(std::signal(SIGUSR2, before), static_cast<sighandler_t>(handler));
}

using AmxSignalDeathTest = AmxSignal; // run before the tests that start threads
TEST_F(AmxSignalDeathTest, TheDefaultActionKills) {
  std::signal(SIGILL, SIG_DFL);
  EXPECT_EXIT(ud2(), testing::KilledBySignal(SIGILL), "");
  EXPECT_EXIT(raise(SIGILL), testing::KilledBySignal(SIGILL), "");
  std::signal(SIGILL, SIG_IGN);
  EXPECT_EXIT(ud2(), testing::KilledBySignal(SIGILL), "") << "a trap cannot be ignored";
  EXPECT_EXIT((raise(SIGILL), _exit(7)), testing::ExitedWithCode(7), "");
}

} // namespace
