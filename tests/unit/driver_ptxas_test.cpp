// ptxas as a child process: the real one on small PTX, and shell scripts that misbehave in its place.
#include "driver_support.h"
#include "runtime/driver/Process.h"
#include "runtime/driver/Ptxas.h"
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <random>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>

namespace quern::driver {
namespace {

using test::Environment;
using test::Folder;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

/// Tests of the real ptxas: its temporary files go to `temporary`, which must be empty afterwards.
class RealPtxas : public testing::Test {
protected:
  Folder temporary;
  Environment tmp{"TMPDIR", temporary.path.string()};
  void SetUp() override {
    if (findPtxas().empty()) GTEST_SKIP() << "no ptxas: " << missingPtxas().str();
  }
  void TearDown() override { EXPECT_THAT(temporary.names(), IsEmpty()); }
};

TEST_F(RealPtxas, TinyKernel) {
  auto result = assemble(test::tinyPtx(), "sm_90a");
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_THAT(result->cubin, StartsWith("\x7f"
                                        "ELF"));
  ASSERT_EQ(result->report.kernels.size(), 1u) << result->log;
  const PtxasKernel *kernel = result->report.find("twice");
  ASSERT_TRUE(kernel);
  EXPECT_TRUE(kernel->isEntry);
  EXPECT_GT(kernel->registers, 0);
  EXPECT_EQ(kernel->smemBytes, 256);
  EXPECT_EQ(kernel->barriers, 1);
  EXPECT_TRUE(result->report.clean()) << result->log;
  EXPECT_FALSE(result->ptxas.path.empty());
}

/// 40 values that live across a loop, under a limit of 24 registers.
std::string manyValues() {
  std::string body =
      ".visible .entry crowded(.param .u64 p) {\n  .reg .b64 %p; .reg .f32 %f<40>; .reg .b32 %i; "
      ".reg .pred %q;\n  ld.param.u64 %p, [p];\n  mov.u32 %i, 0;\n";
  for (int i = 0; i < 40; ++i) body += fmt::format("  ld.global.f32 %f{}, [%p+{}];\n", i, i * 64);
  body += "LOOP:\n";
  for (int i = 0; i < 40; ++i)
    body += fmt::format("  fma.rn.f32 %f{}, %f{}, %f{}, %f{};\n", i, i, (i + 7) % 40, (i + 19) % 40);
  body += "  add.u32 %i, %i, 1;\n  setp.lt.u32 %q, %i, 9999;\n  @%q bra LOOP;\n";
  for (int i = 0; i < 40; ++i) body += fmt::format("  st.global.f32 [%p+{}], %f{};\n", i * 64, i);
  return test::ptxModule(body + "  ret;\n}\n");
}

TEST_F(RealPtxas, SpillsAreReported) {
  auto tight = assemble(manyValues(), "sm_90a", {.maxRegisters = 24});
  ASSERT_TRUE(tight) << tight.error().str();
  const PtxasKernel *kernel = tight->report.find("crowded");
  ASSERT_TRUE(kernel) << tight->log;
  EXPECT_GT(kernel->spillStoreBytes, 0) << tight->log;
  EXPECT_GT(kernel->spillLoadBytes, 0) << tight->log;
  EXPECT_GT(kernel->stackBytes, 0) << tight->log;
  EXPECT_EQ(kernel->registers, 24) << tight->log;
  EXPECT_FALSE(tight->report.clean());

  auto free = assemble(manyValues(), "sm_90a");
  ASSERT_TRUE(free) << free.error().str();
  EXPECT_EQ(free->report.spillBytes(), 0) << free->log;
  EXPECT_TRUE(free->report.clean());
}

TEST_F(RealPtxas, WgmmaAndSetmaxnregAdvisories) {
  auto result = assemble(test::ptxModule(R"(.visible .entry k(.param .u64 p) {
  .reg .b64 %d, %p; .reg .f32 %f<5>;
  ld.param.u64 %p, [p];
  mov.b64 %d, 0x4000004000010000;
  mov.f32 %f1, 0f00000000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
  setmaxnreg.dec.sync.aligned.u32 40;
  wgmma.fence.sync.aligned;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1,%f2,%f3,%f4}, %d, %d, 1, 1, 1, 0, 0;
  wgmma.commit_group.sync.aligned;
  add.f32 %f1, %f1, %f2;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1,%f2,%f3,%f4}, %d, %d, 1, 1, 1, 0, 0;
  wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 0;
  st.global.f32 [%p], %f1;
  ret;
}
)"),
                         "sm_90a");
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_TRUE(result->report.setmaxnregIgnored()) << result->log; // it has no .reqntid
  EXPECT_TRUE(result->report.wgmmaInjected()) << result->log;     // it reads an accumulator in flight
  EXPECT_FALSE(result->report.clean());
}

TEST_F(RealPtxas, RefusedPtxShowsItsLines) {
  std::string ptx = test::tinyPtx();
  size_t at = ptx.find("add.f32");
  auto result = assemble(ptx.replace(at, 7, "plus.f32"), "sm_90a");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::Internal);
  EXPECT_EQ(result.error().message, "ptxas refuses the generated PTX");
  EXPECT_THAT(result.error().detail, AllOf(HasSubstr("line 9; error"), HasSubstr("'plus'"),
                                           HasSubstr("       9 |   plus.f32 %f, %f, %f;\n")));
}

TEST_F(RealPtxas, UnknownArchitecture) {
  auto result = assemble(test::tinyPtx(), "sm_123");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::System);
  EXPECT_EQ(result.error().message,
            "no ptxas that was found takes .version 8.0 for sm_123; install a newer one with: "
            "pip install 'nvidia-cuda-nvcc==13.0.*'");
  EXPECT_THAT(result.error().detail, HasSubstr("Value 'sm_123' is not defined for option 'gpu-name'"));
}

TEST_F(RealPtxas, AnOldOneGivesWay) {
  Folder old;
  std::string count = (old.path / "count").string();
  old.tool("bin/ptxas", "echo x >>" + count +
                            "\necho \"ptxas kernel.ptx, line 1; fatal   : Unsupported .version 8.0; "
                            "current version is '7.8'\" >&2\nexit 255");
  std::string real = findPtxas().front().path;
  Environment unset("QUERN_PTXAS", nullptr), home("CUDA_HOME", old.path.string());
  for (int i = 0; i < 2; ++i) {
    auto result = assemble(test::tinyPtx(), "sm_90a");
    ASSERT_TRUE(result) << result.error().str();
    EXPECT_EQ(result->ptxas.path, real);
  }
  EXPECT_EQ(std::filesystem::file_size(count), 2u) << "the old one is asked once";
}

TEST_F(RealPtxas, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  std::vector<std::string> cubins(8);
  for (auto &cubin : cubins)
    threads.emplace_back([&cubin] {
      if (auto result = assemble(test::tinyPtx(), "sm_90a")) cubin = result->cubin;
    });
  for (auto &thread : threads) thread.join();
  EXPECT_THAT(cubins[0], Not(IsEmpty()));
  EXPECT_THAT(cubins, testing::Each(cubins[0])) << "the same PTX gives the same bytes";
}

TEST_F(RealPtxas, Version) {
  auto version = toolVersion(findPtxas().front().path);
  ASSERT_TRUE(version) << version.error().str();
  EXPECT_THAT(*version, testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

/// A script in the place of ptxas. Nothing may stay in the temporary folder, whatever it does.
class FakePtxas : public testing::Test {
protected:
  Folder tools, temporary;
  Environment tmp{"TMPDIR", temporary.path.string()};
  void TearDown() override { EXPECT_THAT(temporary.names(), IsEmpty()); }
  Expected<Assembled> with(const std::string &body, const AssembleOptions &options = {}) {
    Environment tool("QUERN_PTXAS", tools.tool("ptxas", body));
    return assemble(test::tinyPtx(), "sm_90a", options);
  }
};

TEST_F(FakePtxas, TimeLimit) {
  auto start = std::chrono::steady_clock::now();
  std::string late = (tools.path / "late").string();
  auto result = with("(sleep 2; echo x >" + late + ") & sleep 60", {.timeoutSeconds = 0.3});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::System);
  EXPECT_THAT(result.error().message, StartsWith("ptxas did not end within 0."));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(2200));
  EXPECT_FALSE(std::filesystem::exists(late)) << "its children are stopped with it";
}

TEST_F(FakePtxas, ClosesItsOutputAndHangs) {
  auto result = with("exec >&- 2>&-\nsleep 60", {.timeoutSeconds = 0.3});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, StartsWith("ptxas did not end within 0."));
}

TEST_F(FakePtxas, AGrandchildHoldsTheOutput) {
  auto start = std::chrono::steady_clock::now();
  auto result = with("sleep 5 &\necho done\nexit 3");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "ptxas ended with status 3");
  EXPECT_EQ(result.error().detail, "done\n");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST_F(FakePtxas, Crashes) {
  auto result = with("kill -SEGV $$");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::System);
  EXPECT_EQ(result.error().message, "ptxas was ended by signal 11 (Segmentation fault)");
}

/// A host that ignores or blocks signals, and gets its own mask back.
TEST_F(FakePtxas, ItsSignalsAreTheDefault) {
  auto handler = signal(SIGUSR1, SIG_IGN);
  sigset_t mine, before, after;
  sigemptyset(&mine), sigaddset(&mine, SIGUSR1);
  pthread_sigmask(SIG_SETMASK, &mine, &before);
  auto result = with("kill -USR1 $$");
  pthread_sigmask(SIG_SETMASK, &before, &after);
  signal(SIGUSR1, handler);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, StartsWith("ptxas was ended by signal 10"));
  for (int number = 1; number < SIGRTMIN; ++number)
    EXPECT_EQ(sigismember(&after, number), number == SIGUSR1) << number;
}

TEST_F(FakePtxas, SaysMuch) {
  auto result = with("head -c 100000000 /dev/zero | tr '\\0' x\nexit 1");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "ptxas ended with status 1");
  EXPECT_LT(result.error().detail.size(), 5000u);
}

TEST_F(FakePtxas, SuccessWithoutACubin) {
  EXPECT_EQ(with("exit 0").error().message, "ptxas reported success and wrote 0 bytes that are no cubin");
  EXPECT_EQ(with("for last; do :; done\nhead -c 99 /dev/zero >\"$last\"").error().message,
            "ptxas reported success and wrote 99 bytes that are no cubin");
  auto removed = with("for last; do :; done\nrm \"$last\"");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().message, "cannot be opened: No such file or directory");
}

TEST_F(FakePtxas, ItsFilesArePrivateAndItGetsNothingElse) {
  int open = dup(1); // a file of the host without close-on-exec
  auto result =
      with("for last; do :; done\nstat -c '%a' \"$last\" \"$(dirname \"$last\")\" \"$3\"\nls /proc/self/fd | "
           "wc -l\nwc -c <&0\nexit 1");
  close(open);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().detail, "600\n700\n600\n4\n0\n"); // 0, 1, 2 and the folder that ls reads
}

/// Orphans of this process's children come to it, while one of these lives.
struct Orphanage {
  Orphanage() { prctl(PR_SET_CHILD_SUBREAPER, 1); }
  ~Orphanage() { prctl(PR_SET_CHILD_SUBREAPER, 0); }
  /// How the process ended; nothing: it still lives after 20 s.
  static std::optional<int> end(pid_t orphan) {
    for (int i = 0; i < 10'000; ++i) {
      int status = 0;
      if (waitpid(orphan, &status, WNOHANG) == orphan) return status;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return std::nullopt;
  }
};

TEST_F(FakePtxas, DiesWithAParentThatIsKilled) {
  Orphanage orphanage;
  Folder ofChild;
  std::filesystem::path started = ofChild.path / "started";
  pid_t parent = fork();
  if (parent == 0) {
    Environment own("TMPDIR", ofChild.path.string()); // nobody is left to remove what it holds
    (void)with("echo $$ > " + started.string() + ".new; mv " + started.string() + ".new " + started.string() +
               "; exec sleep 600");
    _exit(0);
  }
  ASSERT_GT(parent, 0) << "no fork: " << std::strerror(errno); // kill(-1) would be everybody
  for (int i = 0; i < 10'000 && !std::filesystem::exists(started); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  pid_t tool = 0;
  std::ifstream(started) >> tool;
  ASSERT_GT(tool, 0) << "it was not started";
  kill(parent, SIGKILL);
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  auto end = Orphanage::end(tool);
  EXPECT_TRUE(end && WIFSIGNALED(*end) && WTERMSIG(*end) == SIGKILL) << "it hangs on without its parent";
  if (!end) kill(tool, SIGKILL), waitpid(tool, nullptr, 0);
}

/// Also when the parent dies while it starts the tool.
TEST_F(FakePtxas, DiesWithAParentKilledAtAnyMoment) {
  Orphanage orphanage;
  uint64_t seed = std::random_device()();
  std::mt19937 random(static_cast<unsigned>(seed));
  int left = 0;
  for (int round = 0; round < 200; ++round) {
    pid_t parent = fork();
    if (parent == 0) {
      (void)runProcess({"/bin/sleep", "600"});
      _exit(0);
    }
    ASSERT_GT(parent, 0) << "no fork: " << std::strerror(errno);
    timespec pause{0, long(random() % 2'000'000)};
    nanosleep(&pause, nullptr);
    kill(parent, SIGKILL);
    EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  }
  for (int i = 0; i < 5000 && left >= 0; ++i) { // what still lives is a child of this process now
    pid_t orphan;
    while ((orphan = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    left = orphan == 0 ? 1 : -1;
    if (left > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(left, -1) << "a tool lives on; seed " << seed;
}

/// A host without the first three files: the tool's output still arrives.
TEST_F(FakePtxas, AHostWithoutStandardFiles) {
  pid_t host = fork();
  if (host == 0) {
    for (int file : {0, 1, 2}) close(file);
    auto run = runProcess({"/bin/sh", "-c", "cat; echo said; echo more >&2; exit 7"});
    _exit(run && run->exitStatus == 7 && run->output == "said\nmore\n" ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(host, &status, 0), host);
  EXPECT_EQ(status, 0);
}

/// `ulimit -f`: PTX that is longer than a file may be is an error and no signal.
TEST_F(FakePtxas, ALimitOnTheLengthOfFiles) {
  pid_t host = fork();
  if (host == 0) {
    rlimit files{100, 100}, cores{0, 0};
    setrlimit(RLIMIT_CORE, &cores), setrlimit(RLIMIT_FSIZE, &files);
    auto folder = PrivateFolder::create();
    if (!folder || !folder->write("a", std::string(100, 'x'))) _exit(1);
    auto written = folder->write("b", std::string(101, 'x'));
    if (written || written.error().message != "cannot be written: File too large") _exit(2);
    {
      auto gone = std::move(*folder);
    }
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(host, &status, 0), host);
  EXPECT_EQ(status, 0);
}

TEST_F(FakePtxas, IsNotThere) {
  Environment tool("QUERN_PTXAS", "/nonexistent/ptxas");
  auto result = assemble(test::tinyPtx(), "sm_90a");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().str(), "/nonexistent/ptxas: cannot be started: No such file or directory\n"
                                  "this path is from QUERN_PTXAS");
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
}

TEST(Tools, WhatIsMissingTellsWhereItWasLookedFor) {
  Folder cuda, prefix;
  std::filesystem::create_directories(prefix.path / "lib/python3.12/site-packages");
  Environment unset("QUERN_PTXAS", nullptr), home("CUDA_HOME", cuda.path.string());
  Environment python("QUERN_PYTHON_PREFIX", prefix.path.string());
  Error error = missingPtxas();
  EXPECT_EQ(error.kind, ErrorKind::System);
  EXPECT_THAT(error.message, HasSubstr("pip install 'nvidia-cuda-nvcc==13.0.*'"));
  EXPECT_THAT(
      error.detail,
      AllOf(HasSubstr("QUERN_PTXAS (not set)\n"), HasSubstr(cuda.path.string() + "/bin/ptxas\n"),
            HasSubstr("/usr/local/cuda/bin/ptxas\n"), HasSubstr("ptxas on the PATH\n"),
            HasSubstr(prefix.path.string() + "/lib/python3.12/site-packages/nvidia/cu13/bin/ptxas\n")));
}

TEST(Tools, OrderOfTheSearch) {
  Folder cuda, path, prefix;
  std::string first = cuda.tool("bin/ptxas", ""), second = path.tool("ptxas", "");
  std::string third = prefix.tool("lib/python3.12/site-packages/nvidia/cu13/bin/ptxas", "");
  std::string fourth = prefix.tool("lib/python3.12/site-packages/triton/backends/nvidia/bin/ptxas", "");
  Folder links; // earlier on the PATH: the same file again
  std::filesystem::create_symlink(first, links.path / "ptxas");
  prefix.file("lib/python3.12/site-packages/nvidia/cuda_nvcc/bin/ptxas", "not executable");
  Environment unset("QUERN_PTXAS", nullptr), home("CUDA_HOME", cuda.path.string());
  Environment search("PATH", links.path.string() + ":" + path.path.string()),
      python("QUERN_PYTHON_PREFIX", prefix.path.string());
  std::vector<std::string> found, sources;
  for (auto &tool : findPtxas())
    if (tool.path.find("quern-test-") != std::string::npos) {
      found.push_back(tool.path);
      sources.push_back(tool.source);
    }
  EXPECT_THAT(found, ElementsAre(first, second, third, fourth));
  EXPECT_THAT(sources, ElementsAre("CUDA toolkit", "PATH", "Python package", "Python package"));
  Environment own("QUERN_PTXAS", second);
  ASSERT_EQ(findPtxas().size(), 1u);
  EXPECT_EQ(findPtxas()[0].source, "QUERN_PTXAS");
}

TEST(PtxasLog, KernelsFunctionsAndSeverities) {
  PtxasReport report =
      parsePtxasLog("ptxas warning : Unresolved extern variable 'x'\n"
                    "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are "
                    "serialized due to "
                    "insufficient register resources for the wgmma pipeline in the function 'a'\n"
                    "ptxas info    : 0 bytes gmem\n"
                    "ptxas info    : Compiling entry function 'a' for 'sm_90a'\r\n"
                    "ptxas info    : Function properties for a\n"
                    "    608 bytes stack frame, 1228 bytes spill stores, 1360 bytes spill loads\n"
                    "ptxas info    : Used 168 registers, used 9 barriers, 608 bytes cumulative stack size, "
                    "1024 bytes smem\n"
                    "ptxas info    : Function properties for helper\n"
                    "    0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads\n"
                    "ptxas kernel.ptx, line 7; error   : Unknown symbol 'y'\n"
                    "ptxas fatal   : Ptx assembly aborted due to errors"); // no newline at the end
  ASSERT_EQ(report.kernels.size(), 2u);
  const PtxasKernel *a = report.find("a"), *helper = report.find("helper");
  ASSERT_TRUE(a && helper);
  EXPECT_TRUE(a->isEntry);
  EXPECT_FALSE(helper->isEntry);
  EXPECT_EQ(a->registers, 168);
  EXPECT_EQ(a->barriers, 9);
  EXPECT_EQ(a->smemBytes, 1024);
  EXPECT_EQ(a->stackBytes, 608);
  EXPECT_EQ(a->spillStoreBytes, 1228);
  EXPECT_EQ(a->spillLoadBytes, 1360);
  EXPECT_EQ(report.spillBytes(), 1228 + 1360 + 4);
  EXPECT_THAT(report.warnings, ElementsAre(HasSubstr("Unresolved")));
  EXPECT_EQ(report.errors.size(), 2u);
  EXPECT_TRUE(report.wgmmaSerialized());
  EXPECT_FALSE(report.setmaxnregIgnored());
  EXPECT_FALSE(report.wgmmaInjected());
}

TEST(PtxasLog, Nothing) {
  EXPECT_TRUE(parsePtxasLog("").clean());
  EXPECT_TRUE(parsePtxasLog("\n\nptxas info    : 0 bytes gmem\n").clean());
}

} // namespace
} // namespace quern::driver
