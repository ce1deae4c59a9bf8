// Starts a tool that must not outlive this process, however that ends.
#pragma once
#include <sys/types.h>

namespace quern::driver {

/// Starts argv[0] (a path) with `output` as its stdout and stderr, an empty stdin, no other open file of this
/// process, default signals and a process group of its own. Returns 0 and the process, or an errno.
///
/// The kernel kills it (PR_SET_PDEATHSIG) when the calling thread ends, kill -9 of the whole process
/// included. So the thread that starts a tool is the one that waits for it.
int spawnTool(pid_t &pid, char *const argv[], int output);

} // namespace quern::driver
