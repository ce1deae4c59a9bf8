// AmxEmulator: runs Intel AMX machine code on a CPU that has none, so that tests can execute what the CPU
// code generator emits.
//
// Without AMX every AMX instruction raises #UD, which Linux delivers as SIGILL. The emulator's handler
// decodes the instruction, executes it on the calling thread's own tile state, and continues behind it.
// Test-only: nothing in the product links it.
#pragma once
#include "compiler/support/Error.h"
#include <cstdint>

namespace quern {

/// The instructions that the emulator executes; the numbers are the argument of quern_amx_emulator_count.
enum class AmxKind : int {
  LdTileCfg,
  StTileCfg,
  TileLoadD,
  TileLoadDT1,
  TileStoreD,
  TileZero,
  TileRelease,
  TdpBf16Ps,
};
inline constexpr int amxKindCount = 8;

/// True when the CPU has AMX-TILE and AMX-BF16 and the system has enabled the tile state (CPUID.7.0:EDX,
/// XCR0[18:17]).
bool hasAmxHardware();

/// Installs the SIGILL handler for the whole process; calling it again does nothing. Signals that are not an
/// emulated AMX instruction go to the handler that was there before, or to the one that the program sets
/// later: the library wraps sigaction() and signal(), so a later handler for SIGILL is called by the emulator
/// and does not replace it.
///
/// Refused (System) when the CPU really has AMX, unless `force`. Even then the hardware executes the code
/// natively once the process asked for the tile permission (arch_prctl ARCH_REQ_XCOMP_PERM): no trap comes
/// and every count stays zero. Refused (System) also when the CPU lacks FMA3, which tdpbf16ps needs for its
/// single rounding.
Status installAmxEmulator(bool force = false);

} // namespace quern

extern "C" {
/// Instructions of this kind (AmxKind) emulated so far in this process, by all threads; 0 for an unknown
/// kind.
uint64_t quern_amx_emulator_count(int kind);
/// "ldtilecfg" ... "tdpbf16ps"; null for an unknown kind.
const char *quern_amx_emulator_name(int kind);
/// 1 when the emulator's handler is installed, else 0.
int quern_amx_emulator_installed(void);
}
