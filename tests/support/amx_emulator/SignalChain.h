// SignalChain: who else wants SIGILL. Holds the action that the program believes to be installed, behind the
// emulator's own.
#pragma once
#include <csignal>

namespace quern::amx {

/// The C library's sigaction, past this library's wrapper.
int realSigaction(int signal, const struct sigaction *action, struct sigaction *old);

/// Puts `handler` in front of the action in force for SIGILL; from then on sigaction() and signal() change
/// only what stands behind. Returns false (errno set) when the system refuses.
bool installInFront(void (*handler)(int, siginfo_t *, void *));
bool isInstalled();

/// From inside the handler: does what the program's own action for SIGILL would have done, with its mask and
/// flags. With the default action it takes the emulator's handler away, so that the process ends at the
/// offending instruction. Async-signal-safe.
void callNext(int signal, siginfo_t *info, void *context);

} // namespace quern::amx
