// `quern cache export` and `quern cache import`.
#include "runtime/cache/Archive.h"
#include "runtime/cache/Limit.h"
#include "tools/CacheCommand.h"
#include "tools/CacheView.h"
#include "tools/Commands.h"
#include "tools/Interrupt.h"
#include "tools/Load.h"
#include "tools/Progress.h"
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::tools {
using cache::ListedEntry;
using Json = nlohmann::ordered_json;
namespace {

struct ExportOptions {
  CacheOptions cache;
  CacheFilter filter;
  std::string file;
  bool force = false;
};

Error fileError(const char *what, const std::string &file) {
  return Error::system(fmt::format("{}: {}", what, std::strerror(errno)), file);
}

/// Writes the archive beside its final name, so that a broken export leaves no file that looks whole.
Status exportToFile(const std::string &file, bool force, const std::function<Status(int)> &write) {
  if (!force && access(file.c_str(), F_OK) == 0)
    return Error::user("exists; expected another name, or --force", file);
  std::string part = fmt::format("{}.part-{}", file, getpid());
  int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return fileError("cannot be written", file);
  Status written = write(fd);
  if (close(fd) != 0 && written) written = fileError("cannot be written", file);
  if (written && rename(part.c_str(), file.c_str()) != 0) written = fileError("cannot be written", file);
  if (!written) unlink(part.c_str());
  return written;
}

int exportEntries(const ExportOptions &options) {
  bool toStdout = options.file == "-";
  if (toStdout && isatty(STDOUT_FILENO))
    return report(Error::user("an archive is not text, expected a file or a pipe", "-"));
  auto folder = openCache(options.cache);
  if (!folder) return report(folder.error());
  std::vector<cache::Key> keys;
  int64_t bad = 0;
  for (ListedEntry &entry : readEntries(*folder, false)) {
    if (!options.filter.accepts(entry)) continue;
    if (entry.state == cache::EntryState::Good)
      keys.push_back(std::move(entry.key));
    else
      ++bad;
  }
  auto store = cache::Store::open(folder->path, cache::limitFromEnvironment());
  if (!store) return report(Error::system("cannot be opened", folder->path));

  InterruptGuard guard;
  std::optional<Progress> progress(std::in_place, int64_t(keys.size()), !isatty(STDERR_FILENO));
  cache::ExportReport done;
  auto write = [&](int fd) -> Status {
    auto written = cache::exportArchive(*store, keys, fd, [&](int64_t, uint64_t) {
      progress->finish("exporting", "");
      return !interrupted();
    });
    if (!written) return written.takeError();
    done = *written;
    return {};
  };
  Status written = toStdout ? write(STDOUT_FILENO) : exportToFile(options.file, options.force, write);
  progress.reset();
  if (!written) return interrupted() ? interruptedExit : report(written.error());
  std::string size;
  struct stat status;
  if (!toStdout && stat(options.file.c_str(), &status) == 0)
    size = fmt::format(" to {}, {}", options.file, sizeText(uint64_t(status.st_size)));
  // Standard output may be the archive.
  fmt::print(stderr, "{}, {}, exported{}\n", countText(done.entries, "entry", "entries"),
             sizeText(done.bytes), size);
  if (bad) fmt::print(stderr, "{} not: see `quern cache verify`\n", countText(bad, "entry", "entries"));
  if (done.missing)
    fmt::print(stderr, "{} not: deleted meanwhile\n", countText(done.missing, "entry", "entries"));
  return success;
}

struct ImportOptions {
  CacheOptions cache;
  std::string file;
};

int importEntries(const ImportOptions &options) {
  auto folder = openCache(options.cache, true);
  if (!folder) return report(folder.error());
  uint64_t limit = cache::limitFromEnvironment();
  auto store = cache::Store::open(folder->path, limit);
  if (!store || !folder->writable) return report(Error::system("is read-only", folder->path));
  int fd = options.file == "-" ? STDIN_FILENO : open(options.file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return report(fileError("cannot be read", options.file));

  InterruptGuard guard;
  // The position in the file says how far it is; a pipe has none.
  struct stat status;
  bool seekable = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
  std::optional<Progress> progress(std::in_place, 1, options.cache.json || !isatty(STDERR_FILENO));
  cache::ImportLimits limits;
  limits.totalBytes = limit; // more would push out what was just imported
  auto done = cache::importArchive(*store, fd, limits, [&](int64_t entries, uint64_t) {
    double part = seekable ? double(lseek(fd, 0, SEEK_CUR)) / double(status.st_size) : 0;
    progress->at(fmt::format("importing, {}", countText(entries, "entry", "entries")), part);
    return !interrupted();
  });
  progress.reset();
  if (!done) {
    Error error = done.takeError();
    error.place = options.file == "-" ? "standard input" : options.file;
    return report(error);
  }
  bool whole = !done->refused && !done->unkept && !done->incomplete;
  int exitCode = interrupted() ? interruptedExit : whole ? success : checkFailed;
  if (options.cache.json) {
    Json json = {{"folder", folder->path},   {"imported", done->imported},   {"present", done->present},
                 {"refused", done->refused}, {"unkept", done->unkept},       {"bytes", done->bytes},
                 {"reasons", done->reasons}, {"complete", !done->incomplete}};
    if (done->incomplete) json["incomplete"] = done->incomplete->message;
    fmt::print("{}\n", json.dump(2));
    return exitCode;
  }
  fmt::print("{}, {}, imported into {}; {} already there\n", countText(done->imported, "entry", "entries"),
             sizeText(done->bytes), folder->path, done->present);
  if (done->unkept)
    fmt::print("{} not kept: no space or no permission\n", countText(done->unkept, "entry", "entries"));
  if (done->refused) fmt::print("{} refused:\n", done->refused);
  for (const std::string &reason : done->reasons) fmt::print("  {}\n", reason);
  if (done->refused > int64_t(done->reasons.size())) fmt::print("  ...\n");
  if (done->incomplete) fmt::print("{}\n", done->incomplete->str());
  return exitCode;
}

} // namespace

void addCacheExport(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App *command = cache.add_subcommand("export", "writes entries to one archive");
  command->add_option("FILE", options->file, "the archive, NAME.tar.zst, or - for standard output")
      ->required();
  options->cache.add(*command, false);
  options->filter.add(*command);
  command->add_flag("--force", options->force, "overwrite FILE");
  command->footer("Examples:\n"
                  "  quern cache export kernels.tar.zst\n"
                  "  quern cache export - --kind gpu,tuning | ssh node quern cache import -\n"
                  "The same entries give the same bytes. Exit code: 0 success, 2 an error.");
  command->callback([options, &exitCode] { exitCode = exportEntries(*options); });
}

void addCacheImport(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App *command = cache.add_subcommand("import", "takes entries from an archive of `quern cache export`");
  command->add_option("FILE", options->file, "the archive, or - for standard input")->required();
  options->cache.add(*command, true);
  command->footer("Examples:\n"
                  "  quern cache import kernels.tar.zst\n"
                  "  curl https://example.org/kernels.tar.zst | quern cache import -\n"
                  "Entries are machine code: import only from those whose programs you would run. Names, "
                  "sizes, digests and\n"
                  "keys are checked, no name in the archive becomes a path, nothing is overwritten, nothing "
                  "is executed.\n"
                  "Exit code: 0 all entries are in the cache; 1 some were refused or the archive is cut off; "
                  "2 an error.");
  command->callback([options, &exitCode] { exitCode = importEntries(*options); });
}

} // namespace quern::tools
