// A worker of the tuner whose kernels misbehave as QUERN_PLANT says: "KIND:TEXT", several by ';'. A schedule
// that contains TEXT
//   wrong    gets one element of its output changed, and is the fastest by far
//   bits     gets the last bit of one element changed
//   crash    ends the process with a signal when it is timed
//   compile  ends the process when it is compiled
//   stuck    never returns when it is compiled
//   loop     never returns when it is timed
//   fast     takes a tenth of its time, honestly
// "flush:" makes the self-check see no difference between cold and warm.
#include "runtime/tune/Worker.h"
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

int main(int argc, char **argv) {
  if (argc != 2 || std::string(argv[1]) != "tune-worker") return 2;
  struct Plant {
    std::string kind, text;
  };
  std::vector<Plant> plants;
  const char *variable = std::getenv("QUERN_PLANT");
  std::istringstream all(variable ? variable : "");
  for (std::string one; std::getline(all, one, ';');)
    if (size_t colon = one.find(':'); colon != one.npos)
      plants.push_back({one.substr(0, colon), one.substr(colon + 1)});
  auto has = [&](const char *kind, const std::string &schedule) {
    for (const Plant &p : plants)
      if (p.kind == kind && schedule.find(p.text) != schedule.npos) return true;
    return false;
  };
  quern::tune::WorkerHooks hooks;
  hooks.flushWorks = !has("flush", "");
  hooks.onCompile = [&](const std::string &schedule) {
    if (has("compile", schedule)) std::raise(SIGKILL);
    while (has("stuck", schedule)) pause();
  };
  hooks.afterRun = [&](const std::string &schedule, quern::tune::Case &which) {
    auto *bytes = static_cast<unsigned char *>(which.views[0].data);
    if (has("wrong", schedule)) bytes[1] ^= 0x41; // of a bf16 element: its sign and exponent
    if (has("bits", schedule)) bytes[0] ^= 1;
  };
  hooks.onSample = [&](const std::string &schedule, double &us) {
    if (has("crash", schedule)) std::raise(SIGSEGV);
    while (has("loop", schedule)) pause();
    if (has("wrong", schedule) || has("fast", schedule)) us /= 10;
  };
  return quern::tune::tuneWorker(STDIN_FILENO, STDOUT_FILENO, hooks);
}
