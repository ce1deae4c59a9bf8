// Entries with a right digest over something that no writer of this version wrote: the digest finds damage,
// the bounds of the parts find the rest.
#include "cache_support.h"
#include "runtime/cache/Digest.h"
#include <fmt/format.h>

namespace quern::cache {
namespace {

using testing::HasSubstr;

/// `body` with its digest.
std::string sealed(std::string body) {
  Digest sum = digest(body);
  return body.append(reinterpret_cast<const char *>(sum.data()), sum.size());
}

void set(std::string &bytes, size_t at, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes[at + i] = char(value >> (8 * i));
}

/// Where the fields of the header lie (Entry.cpp).
constexpr size_t schemaAt = 8, sectionsAt = 12, totalAt = 16, keySizeAt = 24, headerBytes = 32;

class CacheEntry : public testing::Test {
protected:
  Key key = test::numbered(1);
  Content content{{{"meta", "12345"}, {"cubin", "abc"}}};
  std::string entry = encodeEntry(key, content);
  std::string body = entry.substr(0, entry.size() - 16);

  /// Why this body with its own length and digest is refused; empty: it is not.
  static std::string refusal(std::string changed, bool ownLength = true) {
    if (ownLength && changed.size() >= totalAt + 8) set(changed, totalAt, changed.size() + 16, 8);
    // In memory of its own size: a read behind the end is seen by a sanitizer.
    std::string bytes = sealed(std::move(changed));
    std::vector<char> exact(bytes.begin(), bytes.end());
    std::string why;
    auto decoded = decodeEntry({exact.data(), exact.size()}, &why);
    EXPECT_EQ(decoded.has_value(), why.empty());
    return why;
  }
  std::string with(size_t at, uint64_t value, size_t size) {
    std::string changed = body;
    set(changed, at, value, size);
    return changed;
  }
};

TEST_F(CacheEntry, IsReadBack) {
  EXPECT_EQ(refusal(body), "");
  auto decoded = decodeEntry(entry);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->keyText, key.text());
  EXPECT_EQ(decoded->content, content);
}

TEST_F(CacheEntry, EveryByteOfTheDigestCounts) {
  for (size_t at = body.size(); at < entry.size(); ++at) {
    std::string bytes = entry;
    bytes[at] = char(bytes[at] ^ 1);
    std::string why;
    EXPECT_FALSE(decodeEntry(bytes, &why)) << at - body.size();
    EXPECT_EQ(why, "wrong digest");
  }
}

TEST_F(CacheEntry, TheHeaderSaysWhatItIs) {
  for (size_t at = 0; at < 8; ++at) {
    std::string other = body;
    other[at] = char(other[at] ^ 1);
    EXPECT_EQ(refusal(other), "not an entry of Quern's cache") << at;
  }
  EXPECT_EQ(refusal(with(schemaAt, schemaVersion + 1, 4)), "another schema version");
  EXPECT_EQ(refusal(with(schemaAt, schemaVersion - 1, 4)), "another schema version");
  EXPECT_EQ(refusal(with(totalAt, entry.size() + 1, 8), false), "wrong length");
  EXPECT_EQ(refusal(with(totalAt, entry.size() - 1, 8), false), "wrong length");
}

TEST_F(CacheEntry, PartsMustFit) {
  constexpr const char *bounds = "parts out of bounds";
  for (uint64_t sections : {0u, 1u, 3u, 4u, 0xffffffffu})
    EXPECT_EQ(refusal(with(sectionsAt, sections, 4)), bounds) << sections;
  uint64_t keySize = key.text().size();
  for (uint64_t size : {keySize + 1, keySize - 1, uint64_t(body.size()), ~uint64_t(0)})
    EXPECT_EQ(refusal(with(keySizeAt, size, 8)), bounds) << size;
  // The last section, a byte longer than what is there: the digest behind it is not its content.
  size_t last = body.size() - content.sections[1].name.size() - content.sections[1].bytes.size() - 12;
  for (uint64_t size : {content.sections[1].bytes.size() + 1, content.sections[1].bytes.size() + 16})
    EXPECT_EQ(refusal(with(last + 4, size, 8)), bounds) << size;
  EXPECT_EQ(refusal(with(last, content.sections[1].name.size() + content.sections[1].bytes.size() + 1, 4)),
            bounds);
  EXPECT_EQ(refusal(body + '\0'), bounds) << "something behind the last part";
  for (size_t size = headerBytes; size < body.size(); ++size)
    EXPECT_EQ(refusal(body.substr(0, size)), bounds) << "cut to " << size;
}

TEST_F(CacheEntry, ShorterThanAHeader) {
  for (size_t size = 0; size < headerBytes; ++size) {
    std::string why;
    EXPECT_FALSE(decodeEntry(sealed(body.substr(0, size)), &why));
    EXPECT_EQ(why, "too short for an entry") << size;
  }
}

/// The JSON form, changed and given its digest.
class CacheEntryText : public testing::Test {
protected:
  static std::string refusal(const std::string &compact) {
    std::string sealed =
        compact.substr(0, compact.size() - 1) + ",\"digest\":\"" + hex(digest(compact)) + "\"}";
    std::string why;
    auto decoded = decodeEntry(sealed, &why);
    EXPECT_EQ(decoded.has_value(), why.empty()) << sealed;
    return why;
  }
  static std::string text(const std::string &sections, const std::string &key = R"(["tuning","a=1"])",
                          const std::string &schema = "1") {
    return fmt::format(R"({{"quern-cache-schema":{},"key":{},"sections":[{}]}})", schema, key, sections);
  }
};

TEST_F(CacheEntryText, SectionsOfEachForm) {
  EXPECT_EQ(refusal(text("")), "");
  EXPECT_EQ(refusal(text(R"({"name":"r","json":{"a":1}},{"name":"t","text":"x"},{"name":"h","hex":"00ff"})")),
            "");
}

TEST_F(CacheEntryText, OtherForms) {
  constexpr const char *other = "parts of another form";
  for (const char *schema : {"2", "0", "\"1\"", "null", "1.5"})
    EXPECT_EQ(refusal(text("", R"(["tuning"])", schema)), other) << schema;
  EXPECT_EQ(refusal(R"({"key":["tuning"],"sections":[]})"), other);
  EXPECT_EQ(refusal(R"({"quern-cache-schema":1,"sections":[]})"), other);
  EXPECT_EQ(refusal(R"({"quern-cache-schema":1,"key":["tuning"]})"), other);
  for (const char *key : {"1", "{}", "[1]", R"(["tuning",["a=1"]])"})
    EXPECT_EQ(refusal(text("", key)), other) << key;
  for (const char *section :
       {"1", "[]", R"({"name":"h"})", R"({"name":1,"text":"x"})", R"({"nome":"h","text":"x"})",
        R"({"name":"h","hex":"0"})", R"({"name":"h","hex":"000"})", R"({"name":"h","hex":"0g"})",
        R"({"name":"h","hex":"FF"})", R"({"name":"h","hex":1})", R"({"name":"h","text":null})",
        R"({"name":"h","text":"x","more":1})", R"({"name":"h","base64":"AAAA"})"})
    EXPECT_EQ(refusal(text(section)), other) << section;
}

} // namespace
} // namespace quern::cache
