// Listing, verifying and clearing of a cache folder; the entry nearest to a key.
#include "runtime/cache/Listing.h"
#include <algorithm>
#include <map>

namespace quern::cache {
namespace {

/// Fields that differ, a missing one included; repeated names pair up in order.
size_t differingFields(const Key &a, const Key &b) {
  std::map<std::pair<std::string_view, size_t>, std::string_view> left;
  std::map<std::string_view, size_t> seen;
  for (const Key::Field &field : a.fields) left[{field.name, seen[field.name]++}] = field.value;
  seen.clear();
  size_t different = 0;
  for (const Key::Field &field : b.fields) {
    auto found = left.find({field.name, seen[field.name]++});
    if (found == left.end()) {
      ++different;
      continue;
    }
    different += found->second != field.value;
    left.erase(found);
  }
  return different + left.size();
}

const Key::Field *findField(const Key &key, std::string_view name) {
  for (const Key::Field &field : key.fields)
    if (field.name == name) return &field;
  return nullptr;
}

} // namespace

std::string_view name(EntryState state) {
  constexpr std::string_view names[] = {"good", "damaged", "misnamed", "untrusted", "unreadable"};
  return names[size_t(state)];
}

std::vector<ListedEntry> listNames(const Folder &folder) {
  std::vector<ListedEntry> entries;
  for (CacheFile &file : listFiles(folder)) {
    if (file.name.empty()) continue;
    ListedEntry entry;
    entry.path = std::move(file.path);
    entry.name = std::move(file.name);
    entry.size = file.size;
    entry.modified = file.modified / 1'000'000'000;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const auto &a, const auto &b) { return a.name < b.name; });
  return entries;
}

bool readEntry(const Folder &folder, ListedEntry &entry) {
  ReadEntry read = readEntryFile(folder, entry.name, nullptr, false);
  entry.why = read.why;
  entry.device = read.device;
  entry.inode = read.inode;
  entry.keyText = read.decoded.keyText;
  entry.content = std::move(read.decoded.content);
  entry.key = {};
  switch (read.result) {
  case ReadResult::Absent:
    struct stat status;
    if (sys::statAt(folder.file.get(), entry.path.c_str(), status) != 0) return false;
    entry.state = EntryState::Unreadable;
    entry.why = "it cannot be opened or read";
    return true;
  case ReadResult::Damaged: entry.state = EntryState::Damaged; return true;
  case ReadResult::Untrusted:
    entry.state = EntryState::Untrusted;
    entry.why = "others could have written it";
    return true;
  case ReadResult::OtherKey:
    entry.state = EntryState::Misnamed;
    entry.why = "its key has another hash";
    break;
  case ReadResult::Found: entry.state = EntryState::Good; break;
  }
  if (!parseKey(entry.keyText, entry.key)) {
    entry.state = EntryState::Damaged;
    entry.why = "its key is not in normal form";
  }
  return true;
}

std::vector<ListedEntry> listEntries(const Folder &folder) {
  std::vector<ListedEntry> entries;
  for (ListedEntry &entry : listNames(folder)) {
    if (!readEntry(folder, entry)) continue;
    entry.content = {};
    entries.push_back(std::move(entry));
  }
  return entries;
}

bool removeEntry(const Folder &folder, const ListedEntry &entry) {
  if (entry.inode == 0) // named only: whatever lies there
    return sys::unlinkAt(folder.file.get(), entry.path.c_str()) == 0;
  ReadEntry which;
  which.device = entry.device;
  which.inode = entry.inode;
  return removeEntryFile(folder, entry.name, which);
}

VerifyReport verify(const Folder &folder) {
  VerifyReport report;
  for (const CacheFile &file : listFiles(folder)) {
    report.bytes += file.size;
    report.temporary += file.temporary;
    report.otherGenerations += file.name.empty() && !file.temporary;
  }
  for (ListedEntry &entry : listEntries(folder)) {
    if (entry.state == EntryState::Good)
      ++report.good;
    else
      report.bad.push_back(std::move(entry));
  }
  return report;
}

ClearReport clear(const Folder &folder, const std::function<bool(const ListedEntry &)> &which) {
  ClearReport report;
  auto count = [&](bool removed, uint64_t bytes) {
    ++(removed ? report.removed : report.failed);
    if (removed) report.bytes += bytes;
  };
  if (!which) {
    for (const CacheFile &file : listFiles(folder))
      count(sys::unlinkAt(folder.file.get(), file.path.c_str()) == 0, file.size);
    return report;
  }
  for (const ListedEntry &entry : listEntries(folder))
    if (which(entry)) count(removeEntry(folder, entry), entry.size);
  return report;
}

std::optional<KeyDifference> firstDifference(const Key &ours, const Key &theirs) {
  if (ours.kind != theirs.kind) return KeyDifference{"kind", ours.kind, theirs.kind};
  for (size_t i = 0; i < std::max(ours.fields.size(), theirs.fields.size()); ++i) {
    if (i < ours.fields.size() && i < theirs.fields.size() && ours.fields[i] == theirs.fields[i]) continue;
    // A field that the other key lacks shifts the rest: look it up by name.
    if (i < ours.fields.size()) {
      const Key::Field &field = ours.fields[i], *other = findField(theirs, field.name);
      return KeyDifference{field.name, field.value, other ? other->value : "(none)"};
    }
    return KeyDifference{theirs.fields[i].name, "(none)", theirs.fields[i].value};
  }
  return std::nullopt;
}

std::optional<Nearest> nearest(const Folder &folder, const Key &key) {
  std::optional<Nearest> best;
  for (ListedEntry &entry : listEntries(folder)) {
    if (entry.state != EntryState::Good || entry.key.kind != key.kind) continue;
    size_t differing = differingFields(key, entry.key);
    if (best && (differing > best->differing ||
                 (differing == best->differing && entry.modified <= best->entry.modified)))
      continue;
    best = Nearest{std::move(entry), differing, std::nullopt};
  }
  if (best) best->first = firstDifference(key, best->entry.key);
  return best;
}

} // namespace quern::cache
