// An archive to entries (Archive.h). The archive is a stranger's: each name, size, digest and key is checked
// before anything is kept, and what is kept goes through Store::publish under the hash of its own key.
#include "runtime/cache/Archive.h"
#include "runtime/cache/ArchiveNames.h"
#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <map>

namespace quern::cache {
namespace {

/// The name with everything unprintable as \xNN, at most 100 characters of it.
std::string printable(std::string_view name) {
  std::string out;
  for (char c : name.substr(0, 100))
    out += c >= ' ' && c < 127 ? std::string(1, c) : fmt::format("\\x{:02x}", uint8_t(c));
  return name.size() > 100 ? out + "..." : out;
}

/// The last part of an entry's path; empty for every other path. The comparison with the one right path of
/// that name leaves nothing to parse.
std::string entryIn(std::string_view path) {
  std::string name(path.substr(path.rfind('/') + 1));
  return isEntryName(name) && path == packed::memberName(name) ? name : std::string();
}

class Importer {
  Store &store;
  const ImportLimits &limits;
  const ArchiveProgress &progress;
  struct archive *in = archive_read_new();
  ImportReport report;
  std::map<std::string, std::string> seen; // name, line of the manifest
  uint64_t total = 0;                      // bytes of all members so far
  bool manifestRead = false;

  void refuse(std::string_view name, std::string_view reason) {
    ++report.refused;
    if (report.reasons.size() < ImportReport::maxReasons)
      report.reasons.push_back(fmt::format("{}: {}", printable(name), reason));
  }
  void stop(std::string message) {
    if (!report.incomplete) report.incomplete = Error::user(std::move(message), "archive");
  }
  std::string lastError() {
    const char *text = archive_error_string(in);
    return text ? printable(text) : "it ends early";
  }

  /// The whole member. Its size has been checked.
  std::optional<std::string> readMember(archive_entry *header) {
    std::string bytes(size_t(archive_entry_size(header)), '\0');
    for (size_t done = 0; done < bytes.size();) {
      la_ssize_t got = archive_read_data(in, bytes.data() + done, bytes.size() - done);
      if (got <= 0) {
        stop(fmt::format("cannot be read further: {}", got < 0 ? lastError() : "it ends early"));
        return {};
      }
      done += size_t(got);
    }
    return bytes;
  }

  void takeEntry(archive_entry *header, const std::string &name) {
    if (int64_t(seen.size()) >= limits.entries) return stop("has too many entries");
    if (uint64_t(archive_entry_size(header)) > limits.entryBytes)
      return refuse(name, fmt::format("is larger than {} bytes", limits.entryBytes));
    auto bytes = readMember(header);
    if (!bytes) return;
    if (!seen.emplace(name, packed::manifestLine(name, *bytes)).second)
      return refuse(name, "stands twice in the archive");
    std::string why;
    auto decoded = decodeEntry(*bytes, &why);
    if (!decoded) return refuse(name, "is damaged: " + why);
    Key key;
    if (!parseKey(decoded->keyText, key) || key.text() != decoded->keyText)
      return refuse(name, "has a malformed key");
    if (entryName(decoded->keyText) != name) return refuse(name, "its name is not the hash of its key");
    if (store.find(key)) {
      ++report.present;
    } else if (store.publish(key, decoded->content)) {
      ++report.imported;
      report.bytes += bytes->size();
    } else {
      ++report.unkept;
    }
    if (progress && !progress(report.present + report.imported + report.unkept, report.bytes))
      stop("was not read to its end: interrupted");
  }

  void takeManifest(archive_entry *header) {
    std::string expected;
    for (auto &[name, line] : seen) expected += line;
    std::optional<std::string> text;
    if (uint64_t(archive_entry_size(header)) == expected.size() && !(text = readMember(header))) return;
    if (text != expected) return stop("holds other entries than its manifest names");
    manifestRead = true;
  }

  void take(archive_entry *header) {
    const char *path = archive_entry_pathname(header);
    std::string_view name = path ? path : "";
    // Before anything is read or passed over: even that takes time.
    if (!archive_entry_size_is_set(header) || archive_entry_size(header) < 0 ||
        (total += uint64_t(archive_entry_size(header))) > limits.totalBytes)
      return stop(fmt::format("holds more than {} bytes", limits.totalBytes));
    if (archive_entry_filetype(header) != AE_IFREG || archive_entry_hardlink(header) ||
        archive_entry_symlink(header) || archive_entry_sparse_count(header) > 0)
      return refuse(name, "is no plain file");
    if (manifestRead) return refuse(name, "stands after the manifest");
    if (name == packed::manifestName) return takeManifest(header);
    if (std::string entry = entryIn(name); !entry.empty()) return takeEntry(header, entry);
    refuse(name, "is not the name of an entry");
  }

  /// The first member says that this is an archive of entries, and of which format.
  Status begin(int fd) {
    archive_read_support_filter_zstd(in);
    archive_read_support_format_tar(in);
    archive_entry *header = nullptr;
    if (archive_read_open_fd(in, fd, 1 << 16) != ARCHIVE_OK ||
        archive_read_next_header(in, &header) < ARCHIVE_WARN)
      return Error::user(fmt::format("is no archive of cache entries: {}", lastError()), "archive");
    // One layer of compression: layers within layers could keep a reader busy without giving a byte.
    if (archive_filter_count(in) > 2) return Error::user("is compressed more than once", "archive");
    const char *name = archive_entry_pathname(header);
    if (!name || name != packed::formatName || archive_entry_filetype(header) != AE_IFREG ||
        archive_entry_size(header) > 64)
      return Error::user("is no archive of cache entries", "archive");
    auto text = readMember(header);
    if (!text) return *report.incomplete;
    if (*text != packed::formatText)
      return Error::user(fmt::format("has format {}, expected {}; another version of Quern wrote it",
                                     printable(text->substr(0, text->find('\n'))),
                                     packed::formatText.substr(0, 1)),
                         "archive");
    return {};
  }

public:
  Importer(Store &store, const ImportLimits &limits, const ArchiveProgress &progress)
      : store(store), limits(limits), progress(progress) {}
  Importer(const Importer &) = delete;
  ~Importer() { archive_read_free(in); }

  Expected<ImportReport> run(int fd) {
    if (auto begun = begin(fd); !begun) return begun.takeError();
    // What is refused costs time too.
    int64_t membersLeft = limits.entries + 1024;
    while (!report.incomplete) {
      archive_entry *header = nullptr;
      int result = archive_read_next_header(in, &header);
      if (result == ARCHIVE_EOF) break;
      if (result < ARCHIVE_WARN)
        stop(fmt::format("cannot be read further: {}", lastError()));
      else if (--membersLeft < 0)
        stop("has too many members");
      else
        take(header);
    }
    if (!manifestRead) stop("has no manifest at its end: it was cut off");
    return std::move(report);
  }
};

} // namespace

Expected<ImportReport> importArchive(Store &store, int fd, const ImportLimits &limits,
                                     const ArchiveProgress &progress) {
  return Importer(store, limits, progress).run(fd);
}

} // namespace quern::cache
