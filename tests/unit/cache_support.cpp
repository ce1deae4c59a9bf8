// Folders, stores, children and failing system calls for the cache's tests.
#include "cache_support.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <mutex>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

namespace quern::cache::test {
namespace {

std::mutex noticeMutex;
std::vector<std::string> noticeTexts;

std::atomic<int64_t> callCount{0}, failAt{0};
std::atomic<bool> failForEver{false};
sys::Fault faultOfTest;

sys::Fault failHook(sys::Call) {
  int64_t call = ++callCount;
  bool now = failForEver ? call >= failAt : call == failAt;
  return now ? faultOfTest : sys::Fault{};
}

} // namespace

TempFolder::TempFolder() {
  // In memory where there is such a folder: thousands of publications, each synced in some tests.
  std::string top = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : testing::TempDir();
  std::string name = top + "/quern-cache-test-XXXXXX";
  if (mkdtemp(name.data())) path = name;
  EXPECT_FALSE(path.empty()) << name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  if (!path.empty()) std::filesystem::remove_all(path, ignored);
}

std::unique_ptr<DiskStore> TestCache::open(uint64_t limit, std::chrono::milliseconds patience) const {
  StoreOptions options;
  Expected<Folder> opened = openFolder(folder, true);
  if (!opened) ADD_FAILURE() << opened.error().str();
  if (opened) options.folder = std::move(*opened);
  options.limitBytes = limit;
  options.patience = patience;
  options.locks = std::make_shared<LockFolder>(openFolder(locks, true));
  return std::make_unique<DiskStore>(std::move(options));
}

Folder TestCache::opened() const {
  Expected<Folder> found = openFolder(folder, true);
  if (!found) ADD_FAILURE() << found.error().str();
  return found ? std::move(*found) : Folder();
}

std::vector<std::filesystem::path> TestCache::files() const {
  std::vector<std::filesystem::path> paths;
  for (const auto &file : std::filesystem::recursive_directory_iterator(folder))
    if (file.is_regular_file()) paths.push_back(file.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

Key numbered(int number, const char *kind) {
  Key key;
  key.kind = kind;
  key.add("kernel", fmt::format("kernel k{}(x: [T, K])\n  y = x", number));
  key.add("arch", "sm_90a");
  return key;
}

Content contentOf(int number, size_t size) {
  std::mt19937_64 random{uint64_t(number)};
  std::string bytes(size, '\0');
  for (char &byte : bytes) byte = char(random());
  return {{{"meta", fmt::format("{{\"number\":{}}}", number)}, {"cubin", bytes}}};
}

pid_t spawnChild(const std::function<int()> &body) {
  std::fflush(nullptr);
  pid_t child = fork();
  if (child == 0) _exit(body());
  return child;
}

int waitChild(pid_t child) {
  int status = 0;
  if (child <= 0) return -2000; // there was no fork; waitpid would take it for any child
  if (waitpid(child, &status, 0) != child) return -1000;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

Notices::Notices() {
  forgetNotices();
  noticeTexts.clear();
  setNoticeSink([](const std::string &text) {
    std::lock_guard<std::mutex> guard(noticeMutex);
    noticeTexts.push_back(text);
  });
}
Notices::~Notices() {
  setNoticeSink(nullptr);
  forgetNotices();
}
std::vector<std::string> Notices::texts() const {
  std::lock_guard<std::mutex> guard(noticeMutex);
  return noticeTexts;
}

FailNth::FailNth(int64_t n, sys::Fault fault, bool forEver) {
  callCount = 0;
  failAt = n;
  failForEver = forEver;
  faultOfTest = fault;
  sys::setHook(failHook);
}
FailNth::~FailNth() { sys::setHook(nullptr); }
bool FailNth::fired() const { return callCount >= failAt; }
int64_t FailNth::calls() const { return callCount; }

std::string readBytes(const std::filesystem::path &path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void writeBytes(const std::filesystem::path &path, std::string_view bytes) {
  std::filesystem::remove(path); // ext4 flushes a file that is truncated and written again: milliseconds
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), std::streamsize(bytes.size()));
}

uint64_t testSeed() {
  const char *wanted = std::getenv("QUERN_TEST_SEED");
  uint64_t seed = wanted ? std::strtoull(wanted, nullptr, 10) : std::random_device()();
  std::printf("seed %llu (QUERN_TEST_SEED repeats it)\n", static_cast<unsigned long long>(seed));
  return seed;
}

} // namespace quern::cache::test
