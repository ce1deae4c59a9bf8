// For tests of archives of cache entries: a store in memory, entries, and tar archives of any content.
#pragma once
#include "runtime/cache/Archive.h"
#include "runtime/cache/ArchiveNames.h"
#include <archive.h>
#include <archive_entry.h>
#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

namespace quern::cache::test {

/// Keeps everything, by the key's text; `full`: keeps nothing more.
struct MemoryStore : Store {
  std::map<std::string, Content> entries;
  bool full = false;

  std::string folder() const override { return "memory"; }
  std::optional<Content> find(const Key &key) override {
    auto it = entries.find(key.text());
    return it == entries.end() ? std::nullopt : std::optional(it->second);
  }
  bool publish(const Key &key, const Content &content) override {
    if (!full) entries.emplace(key.text(), content);
    return entries.count(key.text());
  }
  Expected<Content> findOrMake(const Key &, const std::function<Expected<Content>()> &make, bool *) override {
    return make();
  }
  void discard(const Key &key) override { entries.erase(key.text()); }
  CacheStats stats() const override { return {}; }
};

inline std::string randomBytes(std::mt19937_64 &random, size_t size) {
  std::string bytes(size, '\0');
  for (char &c : bytes) c = char(random());
  return bytes;
}

/// Every third is what tuning found: a JSON file.
inline Key keyOf(int number) {
  Key key{number % 3 == 2 ? "tuning" : "gpu", {}};
  key.add("kernel", fmt::format("kernel {{\n  line\\two {}\n}}", number));
  key.add("arch", "sm_90a");
  return key;
}

/// `count` entries with one to three sections; the first has an empty one.
inline std::vector<Key> fill(Store &store, int count, std::mt19937_64 &random) {
  std::vector<Key> keys;
  for (int i = 0; i < count; ++i) {
    Content content;
    for (const char *name : {"meta", "ptx", "cubin"})
      if (content.sections.empty() || random() % 2)
        content.sections.push_back({name, i ? randomBytes(random, random() % 5000) : ""});
    keys.push_back(keyOf(i));
    store.publish(keys.back(), content);
  }
  return keys;
}

/// A file without a name, and its bytes.
struct MemoryFile {
  int fd = memfd_create("archive", MFD_CLOEXEC);
  explicit MemoryFile(std::string_view bytes = {}) {
    if (write(fd, bytes.data(), bytes.size()) != ssize_t(bytes.size())) std::abort();
    lseek(fd, 0, SEEK_SET);
  }
  MemoryFile(const MemoryFile &) = delete;
  ~MemoryFile() { close(fd); }
  std::string bytes() const {
    std::string out(size_t(lseek(fd, 0, SEEK_END)), '\0');
    if (pread(fd, out.data(), out.size(), 0) != ssize_t(out.size())) std::abort();
    return out;
  }
};

inline std::string exported(Store &store, std::span<const Key> keys) {
  MemoryFile file;
  auto report = exportArchive(store, keys, file.fd);
  if (!report) std::fprintf(stderr, "%s\n", report.error().str().c_str());
  return report ? file.bytes() : std::string();
}

inline Expected<ImportReport> imported(Store &store, std::string_view bytes,
                                       const ImportLimits &limits = {}) {
  MemoryFile file(bytes);
  return importArchive(store, file.fd, limits);
}

/// One member of a tar archive, with whatever a stranger may write into its header.
struct TarMember {
  std::string name, bytes;
  unsigned type = AE_IFREG;
  std::string link = {}; // of a symbolic or hard link
  bool hard = false;
  int64_t hole = -1; // a sparse file: data at 0, a hole up to here
};

inline std::string tarOf(const std::vector<TarMember> &members, bool zstd = false, bool raw = false) {
  std::string out;
  auto *writer = archive_write_new();
  if (raw)
    archive_write_set_format_raw(writer); // the first member's bytes alone
  else
    archive_write_set_format_pax_restricted(writer);
  if (zstd) archive_write_add_filter_zstd(writer);
  archive_write_set_bytes_in_last_block(writer, 1);
  archive_write_open(
      writer, &out, nullptr,
      [](struct archive *, void *to, const void *bytes, size_t size) -> la_ssize_t {
        static_cast<std::string *>(to)->append(static_cast<const char *>(bytes), size);
        return la_ssize_t(size);
      },
      nullptr);
  for (const TarMember &member : members) {
    auto *header = archive_entry_new();
    archive_entry_set_pathname(header, member.name.c_str());
    archive_entry_set_filetype(header, member.type);
    archive_entry_set_perm(header, 0777);
    if (member.type == AE_IFREG && !member.hard) archive_entry_set_size(header, int64_t(member.bytes.size()));
    if (member.type == AE_IFLNK) archive_entry_set_symlink(header, member.link.c_str());
    if (member.hard) archive_entry_set_hardlink(header, member.link.c_str());
    if (member.hole >= 0) {
      archive_entry_set_size(header, member.hole);
      archive_entry_sparse_add_entry(header, 0, int64_t(member.bytes.size()));
    }
    archive_write_header(writer, header);
    if (member.type == AE_IFREG && !member.hard)
      archive_write_data(writer, member.bytes.data(), member.bytes.size());
    archive_entry_free(header);
  }
  archive_write_close(writer);
  archive_write_free(writer);
  return out;
}

inline std::string memberOf(const Key &key) { return packed::memberName(entryName(key.text())); }

/// The members of the archive that these entries make, to be spoilt one by one.
inline std::vector<TarMember> membersOf(MemoryStore &store) {
  std::map<std::string, std::string> sorted;
  for (auto &[text, content] : store.entries) {
    Key key;
    if (!parseKey(text, key)) std::abort();
    sorted[entryName(text)] = encodeEntry(key, content);
  }
  std::vector<TarMember> members = {{std::string(packed::formatName), std::string(packed::formatText)}};
  std::string manifest;
  for (auto &[name, bytes] : sorted) {
    members.push_back({packed::memberName(name), bytes});
    manifest += packed::manifestLine(name, bytes);
  }
  members.push_back({std::string(packed::manifestName), manifest});
  return members;
}

} // namespace quern::cache::test
