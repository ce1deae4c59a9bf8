// Damaged entries: the right bytes or a miss, never other bytes; and the damaged file goes.
#include "cache_support.h"
#include "runtime/cache/Digest.h"
#include <fmt/format.h>
#include <sys/stat.h>

namespace quern::cache {
namespace {

using test::Notices;
using test::TestCache;

/// One entry of each form on the disk.
class Damage : public testing::TestWithParam<const char *> {
protected:
  Notices notices;
  TestCache cache;
  std::unique_ptr<DiskStore> store = cache.open();
  Key key = test::numbered(1, GetParam());
  Content content = test::contentOf(1, 500);
  std::filesystem::path path;
  std::string original;
  std::mt19937_64 random{test::testSeed()};

  void SetUp() override {
    ASSERT_TRUE(store->publish(key, content));
    ASSERT_EQ(cache.files().size(), 1u);
    path = cache.files()[0];
    original = test::readBytes(path);
  }
  /// Writes these bytes in place of the entry and looks: whether it was found.
  bool found(const std::string &bytes) {
    test::writeBytes(path, bytes);
    std::optional<Content> found = store->find(key);
    if (found) EXPECT_EQ(*found, content) << "wrong bytes";
    // A damaged file is deleted, so that the next publication succeeds.
    EXPECT_EQ(std::filesystem::exists(path), found.has_value());
    if (!found) {
      EXPECT_TRUE(store->publish(key, content));
      EXPECT_EQ(test::readBytes(path), original);
    }
    return found.has_value();
  }
  bool binary() const { return std::string_view(GetParam()) != "tuning"; }
};

TEST_P(Damage, BitFlips) {
  int hits = 0;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = original;
    bytes[random() % bytes.size()] ^= char(1 << random() % 8);
    hits += found(bytes);
  }
  // Every bit of a binary entry is covered; in JSON white space may change.
  if (binary()) EXPECT_EQ(hits, 0);
  EXPECT_LT(hits, 100);
  EXPECT_EQ(store->stats().damaged, 200 - hits);
  EXPECT_EQ(notices.texts().size(), 1u) << "one warning, however much is damaged";
}

TEST_P(Damage, Truncation) {
  for (int i = 0; i < 200; ++i) {
    size_t size = random() % original.size();
    bool hit = found(original.substr(0, size));
    // JSON without its last line end is whole.
    EXPECT_TRUE(!hit || (!binary() && size + 1 == original.size())) << "cut to " << size;
  }
  EXPECT_FALSE(found(""));
}

TEST_P(Damage, Garbage) {
  for (int i = 0; i < 200; ++i) {
    std::string bytes = original;
    size_t at = random() % bytes.size(), length = 1 + random() % 64;
    std::string before = bytes;
    for (size_t j = at; j < std::min(bytes.size(), at + length); ++j) bytes[j] = char(random());
    if (bytes != before) EXPECT_FALSE(found(bytes) && binary());
  }
  EXPECT_FALSE(found(original + "x") && binary());
  EXPECT_FALSE(found(original + original));
}

TEST_P(Damage, BlocksOfZeros) {
  for (int i = 0; i < 20; ++i) {
    std::string bytes = original;
    size_t at = random() % bytes.size();
    std::fill(bytes.begin() + long(at), bytes.end(), '\0');
    EXPECT_FALSE(found(bytes)) << "from byte " << at;
  }
  // A block that begins behind the last byte that counts: a text entry ends in white space.
  EXPECT_FALSE(found(original.substr(0, original.size() - 1) + '\0'));
  EXPECT_FALSE(found(original + std::string(64, '\0')));
}

INSTANTIATE_TEST_SUITE_P(Forms, Damage, testing::Values("gpu", "tuning"),
                         [](const auto &info) { return std::string(info.param); });

// Another program's file with a good digest, as a crafted import could bring: bounds hold nevertheless.
TEST(CacheDamage, GoodDigestOverBadSizes) {
  std::mt19937_64 random{test::testSeed()};
  std::string entry = encodeEntry(test::numbered(1), test::contentOf(1, 40));
  ASSERT_TRUE(decodeEntry(entry));
  int refused = 0;
  for (size_t at = 0; at + 16 < entry.size(); ++at) {
    std::string bytes = entry.substr(0, entry.size() - 16);
    bytes[at] = char(random());
    Digest sum = digest(bytes);
    bytes.append(reinterpret_cast<const char *>(sum.data()), sum.size());
    std::string why;
    std::optional<Decoded> decoded = decodeEntry(bytes, &why);
    refused += !decoded;
    EXPECT_EQ(why.empty(), decoded.has_value());
  }
  EXPECT_GT(refused, 32); // the header at least
}

TEST(CacheDamage, DeepJsonIsNotFollowed) {
  std::string deep = "{\"digest\":" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}";
  EXPECT_FALSE(decodeEntry(deep));
  Content content{{{"result", "{\"a\":" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}"}}};
  std::optional<Decoded> decoded = decodeEntry(encodeEntry(test::numbered(1, "tuning"), content));
  ASSERT_TRUE(decoded); // kept as a string
  EXPECT_EQ(decoded->content, content);
}

TEST(CacheDamage, TuningResultsAreReadableAndExact) {
  Key key = test::numbered(1, "tuning");
  Content content{{{"result", "{\"schedule\":\"bm=128\",\"us\":1.5,\"z\":[1,2]}"},
                   {"spaced", "{ \"a\": 1 }"},
                   {"plain", "text\n"},
                   {"bytes", std::string("\xff\x00\x80", 3)},
                   {"empty", ""}}};
  std::string entry = encodeEntry(key, content);
  EXPECT_THAT(entry, testing::HasSubstr("\"schedule\": \"bm=128\""));
  EXPECT_THAT(entry, testing::HasSubstr("\"arch=sm_90a\""));
  std::optional<Decoded> decoded = decodeEntry(entry);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->content, content);
  EXPECT_EQ(decoded->keyText, key.text());
}

// Not entries at all under an entry's name.
TEST(CacheDamage, WhatIsNotAFile) {
  Notices notices;
  TestCache cache;
  auto store = cache.open();
  Key key = test::numbered(1);
  ASSERT_TRUE(store->publish(key, test::contentOf(1)));
  std::filesystem::path path = cache.files()[0];
  auto replace = [&](auto make) {
    std::filesystem::remove_all(path);
    make();
    EXPECT_FALSE(store->find(key));
    store->publish(key, test::contentOf(1)); // may fail, must return
  };
  replace([&] { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); });
  replace([&] { std::filesystem::create_directory(path); });
  replace([&] { std::filesystem::create_symlink("/etc/passwd", path); });
  replace([&] { std::filesystem::create_symlink(path, path); });
  EXPECT_LE(notices.texts().size(), 1u);
}

// Two keys with one hash: each is a miss to the other, and the first one stays.
TEST(CacheDamage, AnotherKeyUnderTheSameName) {
  Notices notices;
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(test::numbered(1), test::contentOf(1)));
  ASSERT_TRUE(store->publish(test::numbered(2), test::contentOf(2)));
  std::filesystem::path first =
      std::filesystem::path(cache.folder) / entryPath(entryName(test::numbered(1).text()));
  std::filesystem::path second =
      std::filesystem::path(cache.folder) / entryPath(entryName(test::numbered(2).text()));
  test::writeBytes(second, test::readBytes(first));
  EXPECT_FALSE(store->find(test::numbered(2)));
  EXPECT_FALSE(store->publish(test::numbered(2), test::contentOf(2)));
  EXPECT_TRUE(std::filesystem::exists(second));
  bool made = false;
  auto result =
      store->findOrMake(test::numbered(2), [] { return Expected<Content>(test::contentOf(2)); }, &made);
  ASSERT_TRUE(result);
  EXPECT_TRUE(made);
  EXPECT_EQ(*result, test::contentOf(2));
}

} // namespace
} // namespace quern::cache
