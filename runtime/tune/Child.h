// One worker process: started, asked, killed.
#pragma once
#include "runtime/tune/Protocol.h"
#include <sys/types.h>

namespace quern::tune {

/// What became of one question.
struct Reply {
  enum State { Answered, Died, TimedOut, NotStarted } state = Answered;
  protocol::Json json;     // the answer
  protocol::Json progress; // the last line before it: {"phase": ...} or {"running": ...}
  std::string how;         // of a death: "signal 11 (Segmentation fault)", "exit status 3"
};

class Child {
  std::string executable;
  pid_t pid = -1;
  int socket = -1;
  std::string rest;

  Reply ended(Reply reply);

public:
  explicit Child(std::string executable) : executable(std::move(executable)) {}
  Child(const Child &) = delete;
  ~Child() { kill(); }
  bool alive() const { return pid > 0; }
  const std::string &program() const { return executable; }
  /// Posix_spawn of `EXECUTABLE tune-worker` with a socket as its stdin and stdout, in a process group of its
  /// own.
  Status start();
  /// Sends one line and waits for the answer. Each line that is no answer starts the limit anew.
  Reply ask(const protocol::Json &question, double seconds);
  /// With all its children; no wait for what it was doing.
  void kill();
};

/// `wanted`, else the `quern` beside this program or module, or in ../bin of it. A user error says where it
/// was looked for.
Expected<std::string> workerExecutable(const std::string &wanted);

} // namespace quern::tune
