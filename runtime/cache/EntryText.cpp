// An entry as JSON:
//   {"quern-cache-schema": 1, "key": ["tuning", "name=value", ...],
//    "sections": [{"name": "result", "json": {...}} | {... "text": "..."} | {... "hex": "..."}], "digest":
//    "..."}
// The digest is over the compact form without it, so that a formatter's white space does no harm.
#include "runtime/cache/Digest.h"
#include "runtime/cache/Entry.h"
#include <nlohmann/json.hpp>

namespace quern::cache {
namespace {

using Json = nlohmann::ordered_json;

/// dump() and comparison recurse, and a section may come from a stranger's archive. Exact for what parses.
bool tooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\') ++i;
    if (quoted) continue;
    if ((c == '[' || c == '{') && ++depth > 100) return true;
    if (c == ']' || c == '}') --depth;
  }
  return false;
}

/// Text that is not UTF-8 cannot be dumped.
std::optional<std::string> compact(const Json &json) {
  try {
    return json.dump();
  } catch (const Json::exception &) {
    return std::nullopt;
  }
}

/// Bytes that JSON gives back exactly are stored as JSON, other text as a string, all else in hexadecimal.
Json sectionJson(const Section &section) {
  Json json = {{"name", section.name}};
  if (!tooDeep(section.bytes) && section.bytes.starts_with('{')) {
    Json parsed = Json::parse(section.bytes, nullptr, false);
    if (!parsed.is_discarded() && compact(parsed) == section.bytes) {
      json["json"] = std::move(parsed);
      return json;
    }
  }
  if (compact(Json(section.bytes))) {
    json["text"] = section.bytes;
    return json;
  }
  std::string digits;
  for (unsigned char byte : section.bytes) {
    digits += "0123456789abcdef"[byte >> 4];
    digits += "0123456789abcdef"[byte & 15];
  }
  json["hex"] = digits;
  return json;
}

bool readHex(const std::string &digits, std::string &bytes) {
  if (digits.size() % 2) return false;
  for (size_t i = 0; i < digits.size(); ++i) {
    constexpr std::string_view all = "0123456789abcdef";
    size_t value = all.find(digits[i]);
    if (value == all.npos) return false;
    if (i % 2)
      bytes.back() = char((bytes.back() << 4) | int(value));
    else
      bytes += char(value);
  }
  return true;
}

bool readSection(const Json &json, Section &section) {
  if (!json.is_object() || json.size() != 2 || !json.contains("name") || !json["name"].is_string())
    return false;
  section.name = json["name"].get<std::string>();
  if (json.contains("json")) {
    section.bytes = json["json"].dump();
    return true;
  }
  for (const char *form : {"text", "hex"}) {
    if (!json.contains(form) || !json[form].is_string()) continue;
    std::string value = json[form].get<std::string>();
    if (*form == 'h') return readHex(value, section.bytes);
    section.bytes = std::move(value);
    return true;
  }
  return false;
}

bool readParts(const Json &json, Decoded &decoded) {
  if (json.value("quern-cache-schema", Json()) != schemaVersion) return false;
  if (!json.contains("key") || !json["key"].is_array()) return false;
  if (!json.contains("sections") || !json["sections"].is_array()) return false;
  for (const Json &line : json["key"]) {
    if (!line.is_string()) return false;
    decoded.keyText += line.get<std::string>() + "\n";
  }
  for (const Json &each : json["sections"]) {
    Section section;
    if (!readSection(each, section)) return false;
    decoded.content.sections.push_back(std::move(section));
  }
  return true;
}

} // namespace

std::string encodeEntryText(std::string_view keyText, const Content &content) {
  Json json = {{"quern-cache-schema", schemaVersion}, {"key", Json::array()}, {"sections", Json::array()}};
  for (size_t end; (end = keyText.find('\n')) != keyText.npos; keyText.remove_prefix(end + 1))
    json["key"].push_back(std::string(keyText.substr(0, end)));
  for (const Section &section : content.sections) json["sections"].push_back(sectionJson(section));
  std::optional<std::string> bytes = compact(json); // fails for a key or a name that is no text
  if (!bytes || bytes->size() > maxEntryBytes / 4) return {};
  json["digest"] = hex(digest(*bytes));
  return json.dump(1) + "\n";
}

std::optional<Decoded> decodeEntryText(std::string_view bytes, std::string *why) {
  auto bad = [&](const char *reason) -> std::optional<Decoded> {
    if (why) *why = reason;
    return std::nullopt;
  };
  // The parser takes a zero byte for the end of its input, and a block that a crash left as zeros for
  // nothing.
  if (tooDeep(bytes) || bytes.find('\0') != bytes.npos) return bad("not an entry of Quern's cache");
  Json json = Json::parse(bytes, nullptr, false);
  if (!json.is_object() || !json.contains("digest")) return bad("not an entry of Quern's cache");
  Json sum = json["digest"];
  json.erase("digest");
  std::optional<std::string> body = compact(json);
  if (!body || sum != hex(digest(*body))) return bad("wrong digest");
  Decoded decoded;
  if (!readParts(json, decoded)) return bad("parts of another form");
  return decoded;
}

} // namespace quern::cache
