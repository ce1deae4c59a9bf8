// AmxEmulator: the SIGILL handler around AmxDecode and AmxTiles, the counters, and the switch for LD_PRELOAD.
#include "AmxEmulator.h"
#include "AmxTiles.h"
#include "SignalChain.h"
#include <atomic>
#include <cerrno>
#include <cpuid.h>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <unistd.h>

namespace quern {
namespace {

using namespace amx;

// Initial-exec TLS: the handler reaches it without a call that could allocate. It costs 8.3 KB of static TLS,
// which the loader grants to linked and preloaded libraries, not to dlopen() (there: LD_PRELOAD).
thread_local TileState tileState __attribute__((tls_model("initial-exec")));

std::atomic<uint64_t> counts[amxKindCount];
static_assert(std::atomic<uint64_t>::is_always_lock_free, "counted inside a signal handler");

constexpr const char *names[amxKindCount] = {"ldtilecfg",  "sttilecfg", "tileloadd",   "tileloaddt1",
                                             "tilestored", "tilezero",  "tilerelease", "tdpbf16ps"};

/// One line of text built without the heap or stdio, for use inside the handler; too long a line is cut.
class Line {
  char text[512];
  size_t size = 0;

public:
  Line &operator<<(const char *s) {
    for (; *s && size < sizeof text; ++s) text[size++] = *s;
    return *this;
  }
  Line &number(uint64_t value, unsigned base = 10) {
    char digits[24];
    char *p = digits + sizeof digits;
    *--p = 0;
    do *--p = "0123456789abcdef"[value % base];
    while (value /= base);
    return *this << p;
  }
  void write() {
    for (size_t done = 0; done < size;) {
      ssize_t n = ::write(STDERR_FILENO, text + done, size - done);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  }
};

/// What the processor would answer with #UD or #GP is a bug in the generated code: say which rule, and stop.
[[noreturn]] void stop(const Instruction &in, uint64_t rip, const Fault &fault) {
  Line line;
  line << "quern-amx-emulator: " << names[static_cast<int>(in.kind)] << " at 0x";
  line.number(rip, 16) << ": " << fault.reason << ", found ";
  line.number(static_cast<uint64_t>(fault.found));
  auto shape = [&](int t) {
    line << "; tmm";
    line.number(t) << " is ";
    line.number(tileState.rows[t]) << " rows x ";
    line.number(tileState.colsb[t]) << " bytes";
  };
  const bool dot = in.kind == AmxKind::TdpBf16Ps;
  if (dot || in.kind == AmxKind::TileLoadD || in.kind == AmxKind::TileLoadDT1 ||
      in.kind == AmxKind::TileStoreD)
    shape(in.dest);
  if (dot) shape(in.src1), shape(in.src2);
  line << "\n";
  line.write();
  std::abort();
}

void onSigill(int signal, siginfo_t *info, void *context) {
  auto &gregs = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  auto reg = [&](int index) { return static_cast<uint64_t>(gregs[index]); };
  const uint64_t registers[16] = {reg(REG_RAX), reg(REG_RCX), reg(REG_RDX), reg(REG_RBX),
                                  reg(REG_RSP), reg(REG_RBP), reg(REG_RSI), reg(REG_RDI),
                                  reg(REG_R8),  reg(REG_R9),  reg(REG_R10), reg(REG_R11),
                                  reg(REG_R12), reg(REG_R13), reg(REG_R14), reg(REG_R15)};
  const auto here = [&] { return reinterpret_cast<const uint8_t *>(reg(REG_RIP)); };
  Instruction instruction;
  // si_code <= 0: sent by kill() or raise(), so the code at RIP has nothing to do with it.
  if (info->si_code <= 0 || !decode(here(), registers, instruction)) return callNext(signal, info, context);
  // The trap costs far more than the work, and AMX instructions come in groups: go on while the next one is
  // AMX too.
  do {
    if (Fault fault = execute(tileState, instruction)) stop(instruction, reg(REG_RIP), fault);
    counts[static_cast<int>(instruction.kind)].fetch_add(1, std::memory_order_relaxed);
    gregs[REG_RIP] += instruction.length;
  } while (decode(here(), registers, instruction));
}

bool isSet(const char *variable, const char *value) {
  const char *found = std::getenv(variable);
  return found && !std::strcmp(found, value);
}

[[gnu::constructor]] void installWhenPreloaded() {
  const bool force = isSet("QUERN_EMULATE_AMX", "force");
  if (!force && !isSet("QUERN_EMULATE_AMX", "1")) return;
  if (Status status = installAmxEmulator(force); !status)
    (Line() << "quern-amx-emulator: " << status.error().message.c_str() << "\n").write();
}

[[gnu::destructor]] void reportAtExit() {
  if (!isSet("QUERN_AMX_EMULATOR_REPORT", "1")) return;
  Line line;
  line << "quern-amx-emulator:";
  for (int kind = 0; kind < amxKindCount; ++kind) {
    line << (kind ? ", " : " ") << names[kind] << " ";
    line.number(counts[kind].load());
  }
  (line << "\n").write();
}

} // namespace

bool hasAmxHardware() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false; // OSXSAVE
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d & 1u << 24) || !(d & 1u << 22)) return false; // AMX-TILE, AMX-BF16
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & 0x60000) == 0x60000; // XTILECFG and XTILEDATA
}

Status installAmxEmulator(bool force) {
  if (isInstalled()) return {};
  auto refuse = [](std::string message) {
    Error error; // filled here: preloaded into another program, this library brings no other part of Quern
                 // along
    error.kind = ErrorKind::System;
    error.message = std::move(message);
    return Status(std::move(error));
  };
  if (!force && hasAmxHardware())
    return refuse(
        "this CPU has AMX and runs the code itself, so there is nothing to emulate (counts would stay zero)");
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    return refuse("the AMX emulator needs a CPU with AVX2 and FMA3");
  selectDotBf16();
  if (!installInFront(onSigill))
    return refuse(std::string("cannot set the SIGILL handler: ") + std::strerror(errno));
  return {};
}

} // namespace quern

extern "C" {
uint64_t quern_amx_emulator_count(int kind) {
  return kind < 0 || kind >= quern::amxKindCount ? 0 : quern::counts[kind].load(std::memory_order_relaxed);
}
const char *quern_amx_emulator_name(int kind) {
  return kind < 0 || kind >= quern::amxKindCount ? nullptr : quern::names[kind];
}
int quern_amx_emulator_installed(void) { return quern::amx::isInstalled(); }
}
