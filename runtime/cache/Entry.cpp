// Integers are little endian:
//   magic[8] schema:u32 sections:u32 total:u64 keySize:u64 key { nameSize:u32 size:u64 name bytes }*
//   digest[16]
#include "runtime/cache/Entry.h"
#include "runtime/cache/Digest.h"
#include <algorithm>
#include <cstring>

namespace quern::cache {
namespace {

constexpr std::string_view magic = "QUERNCE\n";
constexpr size_t headerBytes = 8 + 4 + 4 + 8 + 8;

template <class Integer> void put(std::string &bytes, Integer value) {
  for (size_t i = 0; i < sizeof value; ++i) bytes += char(value >> (8 * i));
}

/// Takes parts off the front; every read is checked against what is left.
class Reader {
  std::string_view rest;

public:
  explicit Reader(std::string_view bytes) : rest(bytes) {}
  bool empty() const { return rest.empty(); }
  template <class Integer> bool take(Integer &value) {
    if (rest.size() < sizeof value) return false;
    value = 0;
    for (size_t i = 0; i < sizeof value; ++i)
      value |= Integer(static_cast<unsigned char>(rest[i])) << (8 * i);
    rest.remove_prefix(sizeof value);
    return true;
  }
  bool take(uint64_t size, std::string &bytes) {
    if (rest.size() < size) return false;
    bytes.assign(rest.substr(0, size));
    rest.remove_prefix(size);
    return true;
  }
};

bool readParts(Reader &reader, uint32_t sections, Decoded &decoded) {
  uint64_t keySize;
  if (!reader.take(keySize) || !reader.take(keySize, decoded.keyText)) return false;
  for (uint32_t i = 0; i < sections; ++i) {
    Section section;
    uint32_t nameSize;
    uint64_t size;
    if (!reader.take(nameSize) || !reader.take(size) || !reader.take(nameSize, section.name) ||
        !reader.take(size, section.bytes))
      return false;
    decoded.content.sections.push_back(std::move(section));
  }
  return reader.empty();
}

} // namespace

const std::string *Content::find(std::string_view name) const {
  for (const Section &section : sections)
    if (section.name == name) return &section.bytes;
  return nullptr;
}

std::string entryName(std::string_view keyText) {
  return hex(digest(keyText)) + (keyText.starts_with("tuning\n") ? ".json" : ".entry");
}

bool isEntryName(std::string_view name) {
  return name.find_first_not_of("0123456789abcdef") == 32 &&
         (name.substr(32) == ".entry" || name.substr(32) == ".json");
}

std::string encodeEntry(std::string_view text, const Content &content) {
  if (entryName(text).ends_with(".json")) return encodeEntryText(text, content);
  uint64_t total = headerBytes + text.size() + sizeof(Digest);
  for (const Section &section : content.sections) total += 12 + section.name.size() + section.bytes.size();
  if (total > maxEntryBytes) return {};
  std::string bytes(magic);
  bytes.reserve(total);
  put(bytes, schemaVersion);
  put(bytes, uint32_t(content.sections.size()));
  put(bytes, total);
  put(bytes, uint64_t(text.size()));
  bytes += text;
  for (const Section &section : content.sections) {
    put(bytes, uint32_t(section.name.size()));
    put(bytes, uint64_t(section.bytes.size()));
    bytes += section.name;
    bytes += section.bytes;
  }
  Digest sum = digest(bytes);
  bytes.append(reinterpret_cast<const char *>(sum.data()), sum.size());
  return bytes;
}

std::optional<Decoded> decodeEntry(std::string_view bytes, std::string *why) {
  auto bad = [&](const char *reason) -> std::optional<Decoded> {
    if (why) *why = reason;
    return std::nullopt;
  };
  if (bytes.starts_with('{')) return decodeEntryText(bytes, why);
  if (bytes.size() < headerBytes + sizeof(Digest)) return bad("too short for an entry");
  std::string_view body = bytes.substr(0, bytes.size() - sizeof(Digest));
  if (!body.starts_with(magic)) return bad("not an entry of Quern's cache");
  Digest sum = digest(body);
  if (std::memcmp(sum.data(), bytes.data() + body.size(), sum.size()) != 0) return bad("wrong digest");
  // A right digest says that these are the writer's bytes, not that the writer was sane.
  Reader reader(body.substr(magic.size()));
  uint32_t schema, sections;
  uint64_t total;
  if (!reader.take(schema) || !reader.take(sections) || !reader.take(total)) return bad("truncated header");
  if (schema != schemaVersion) return bad("another schema version");
  if (total != bytes.size()) return bad("wrong length");
  Decoded decoded;
  if (!readParts(reader, sections, decoded)) return bad("parts out of bounds");
  return decoded;
}

} // namespace quern::cache
