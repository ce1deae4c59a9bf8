// The bytes of one entry: schema, key text, sections, and a digest over all of them. Images are binary; what
// tuning found is a JSON file that a person can read, ship and review.
#pragma once
#include "runtime/cache/Store.h"

namespace quern::cache {

/// Of the folder's generation ("v1") and of every entry in it. Another layout of entries gets another number;
/// generations never touch each other's files, except to make room.
constexpr uint32_t schemaVersion = 1;
/// Longer ones are neither written nor read.
constexpr uint64_t maxEntryBytes = uint64_t(1) << 30;

/// The file's name: the hash of the key text, and ".json" for the kind "tuning", else ".entry".
std::string entryName(std::string_view keyText);
/// Whether a file could be an entry by its name.
bool isEntryName(std::string_view name);

/// Empty when it would be too long.
std::string encodeEntry(std::string_view keyText, const Content &content);
inline std::string encodeEntry(const Key &key, const Content &content) {
  return encodeEntry(key.text(), content);
}

struct Decoded {
  std::string keyText;
  Content content;
};
/// Nothing unless every byte is as it was written; `why` then says what is wrong.
std::optional<Decoded> decodeEntry(std::string_view bytes, std::string *why = nullptr);

// EntryText.cpp: the JSON form.
std::string encodeEntryText(std::string_view keyText, const Content &content);
std::optional<Decoded> decodeEntryText(std::string_view bytes, std::string *why);

} // namespace quern::cache
