// The bytes of one entry: magic, schema, key text, sections, digest over everything before it.
#pragma once
#include "runtime/cache/Store.h"

namespace quern::cache {

/// Of the folder's generation ("v1") and of every entry in it. Another layout of entries gets another number;
/// generations never touch each other's files, except to make room.
constexpr uint32_t schemaVersion = 1;
/// Longer ones are neither written nor read.
constexpr uint64_t maxEntryBytes = uint64_t(1) << 30;

/// Empty when it would be too long.
std::string encodeEntry(const Key &key, const Content &content);

struct Decoded {
  std::string keyText;
  Content content;
};
/// Nothing unless every byte is as it was written; `why` then says what is wrong.
std::optional<Decoded> decodeEntry(std::string_view bytes, std::string *why = nullptr);

} // namespace quern::cache
