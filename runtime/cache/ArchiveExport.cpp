// Entries to an archive (Archive.h).
#include "runtime/cache/Archive.h"
#include "runtime/cache/ArchiveNames.h"
#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <map>

namespace quern::cache {
namespace {

class Writer {
  struct archive *out = archive_write_new();
  archive_entry *header = archive_entry_new();

  Status checked(la_ssize_t result) {
    if (result >= ARCHIVE_OK) return {};
    const char *reason = archive_error_string(out);
    return Error::system(fmt::format("cannot be written: {}", reason ? reason : "unknown error"), "archive");
  }

public:
  Writer() = default;
  Writer(const Writer &) = delete;
  ~Writer() {
    archive_entry_free(header);
    archive_write_free(out);
  }

  Status open(int fd) {
    archive_write_set_bytes_in_last_block(out, 1); // no padding into a pipe either
    for (int result : {archive_write_set_format_ustar(out), archive_write_add_filter_zstd(out),
                       archive_write_open_fd(out, fd)})
      if (auto opened = checked(result); !opened) return opened;
    return {};
  }

  /// A regular file that says nothing of who wrote it, where or when.
  Status add(const std::string &name, std::string_view bytes) {
    archive_entry_clear(header);
    archive_entry_set_pathname(header, name.c_str());
    archive_entry_set_filetype(header, AE_IFREG);
    archive_entry_set_perm(header, 0600);
    archive_entry_set_mtime(header, 0, 0);
    archive_entry_set_size(header, int64_t(bytes.size()));
    if (auto begun = checked(archive_write_header(out, header)); !begun) return begun;
    while (!bytes.empty()) {
      la_ssize_t written = archive_write_data(out, bytes.data(), bytes.size());
      if (written <= 0) return checked(written < 0 ? written : ARCHIVE_FATAL);
      bytes.remove_prefix(size_t(written));
    }
    return {};
  }

  Status close() { return checked(archive_write_close(out)); }
};

} // namespace

Expected<ExportReport> exportArchive(Store &store, std::span<const Key> keys, int fd,
                                     const ArchiveProgress &progress) {
  std::map<std::string, const Key *> sorted;
  for (const Key &key : keys) sorted.emplace(entryName(key.text()), &key);
  Writer writer;
  if (auto opened = writer.open(fd); !opened) return opened.takeError();
  if (auto added = writer.add(std::string(packed::formatName), packed::formatText); !added)
    return added.takeError();
  ExportReport report;
  std::string manifest;
  for (auto &[name, key] : sorted) {
    auto content = store.find(*key); // another process may have evicted it meanwhile
    std::string entry = content ? encodeEntry(*key, *content) : std::string();
    if (entry.empty()) {
      ++report.missing;
      continue;
    }
    if (auto added = writer.add(packed::memberName(name), entry); !added) return added.takeError();
    manifest += packed::manifestLine(name, entry);
    ++report.entries;
    report.bytes += entry.size();
    if (progress && !progress(report.entries + report.missing, report.bytes))
      return Error::user("is not complete: interrupted", "archive");
  }
  if (auto added = writer.add(std::string(packed::manifestName), manifest); !added) return added.takeError();
  if (auto closed = writer.close(); !closed) return closed.takeError();
  return report;
}

} // namespace quern::cache
