// The cache's folder as a person sees it: what `quern cache ls`, `show`, `explain`, `verify` and `clear` work
// on. Nothing here waits or takes a lock; entries may come and go meanwhile.
#pragma once
#include "runtime/cache/Files.h"
#include "runtime/cache/Room.h"
#include "runtime/cache/Store.h"

namespace quern::cache {

enum class EntryState {
  Good,
  Damaged,   // wrong digest, truncated, not an entry: `why`
  Misnamed,  // intact, under the name of another key: never found, never used
  Untrusted, // others could have written it
  Unreadable,
};
std::string_view name(EntryState state);

struct ListedEntry {
  std::string path; // below the folder
  std::string name; // file name: hash and ".entry" or ".json"
  std::string hash() const { return name.substr(0, 32); }
  uint64_t size = 0;    // bytes of the file
  int64_t modified = 0; // seconds since 1970: used or written, to the hour
  // What follows is empty after listNames().
  EntryState state = EntryState::Good;
  std::string why;
  std::string keyText;
  Key key;         // empty fields if the text is not a key's
  Content content; // only from readEntry()
  uint64_t device = 0, inode = 0;
};

/// Entries by name, sorted by name, without opening them.
std::vector<ListedEntry> listNames(const Folder &folder);
/// Reads all of one entry and checks it; false: it is gone.
bool readEntry(const Folder &folder, ListedEntry &entry);
/// listNames(), each entry read and checked, without its content.
std::vector<ListedEntry> listEntries(const Folder &folder);

/// Deletes this very file, not one that has taken its place since it was read.
bool removeEntry(const Folder &folder, const ListedEntry &entry);

struct VerifyReport {
  int64_t good = 0;
  uint64_t bytes = 0;           // of all files
  std::vector<ListedEntry> bad; // neither good nor gone
  int64_t temporary = 0;        // left by killed or living writers
  int64_t otherGenerations = 0; // files of other schema versions
};
/// Reads everything. Changes nothing.
VerifyReport verify(const Folder &folder);

struct ClearReport {
  int64_t removed = 0, failed = 0;
  uint64_t bytes = 0;
};
/// Deletes the entries that `which` accepts (all of them: also temporary files and other generations).
ClearReport clear(const Folder &folder, const std::function<bool(const ListedEntry &)> &which = {});

/// The first place where two keys differ, in the order of the fields.
struct KeyDifference {
  std::string field;        // "kind", or a field's name
  std::string ours, theirs; // values; "(none)" for a field that one key lacks
};
std::optional<KeyDifference> firstDifference(const Key &ours, const Key &theirs);

struct Nearest {
  ListedEntry entry;
  size_t differing = 0; // fields; 0: the key itself is there
  std::optional<KeyDifference> first;
};
/// The good entry of the same kind with the fewest differing fields; of equals, the one used last.
std::optional<Nearest> nearest(const Folder &folder, const Key &key);

} // namespace quern::cache
