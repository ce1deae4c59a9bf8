// Keys: their text, its parser, the hash that names the file.
#include "cache_support.h"
#include "runtime/cache/Key.h"
#include <fmt/format.h>
#include <set>

namespace quern::cache {
namespace {

Key sample() {
  Key key;
  key.kind = "gpu";
  key.add("kernel", "kernel f()\n\ty = \"a\\b\"\r\n");
  key.add("schedule", "bm=128 bn=256");
  key.add("arch", "sm_90a");
  key.add("", "");
  return key;
}

// The names of files, now and for ever: another value would orphan every cache.
TEST(CacheKey, TextAndHashArePinned) {
  EXPECT_EQ(sample().text(),
            "gpu\nkernel=kernel f()\\n\ty = \"a\\\\b\"\\r\\n\nschedule=bm=128 bn=256\narch=sm_90a\n=\n");
  EXPECT_EQ(sample().hash(), "a96337a731ed377f5c7b52c0365fc4e6");
  EXPECT_EQ(Key().hash(), "7858ef011ea0bad1384868fba0c21fdc");
}

TEST(CacheKey, ParsesItsOwnText) {
  Key parsed;
  ASSERT_TRUE(parseKey(sample().text(), parsed));
  EXPECT_EQ(parsed, sample());
}

TEST(CacheKey, RefusesOtherTexts) {
  for (const char *text : {"", "gpu", "gpu\na", "gpu\na\n", "gpu\na=b", "gpu\na=\\x\n", "gpu\na=\\\n",
                           "gpu\na=b\r\n", "g=pu\n", "gpu\na=\\e\n", "gpu\n\n"}) {
    Key key = sample();
    EXPECT_FALSE(parseKey(text, key)) << text;
    EXPECT_EQ(key, sample()) << "changed by a text that is refused";
  }
}

// Every single change of a key changes text and hash; no two of them meet.
TEST(CacheKey, EveryFieldCounts) {
  std::vector<Key> keys{sample()};
  auto change = [&](auto edit) {
    Key key = sample();
    edit(key);
    keys.push_back(std::move(key));
  };
  change([](Key &key) { key.kind = "cpu"; });
  change([](Key &key) { key.kind += "\nkernel=x"; });
  for (size_t i = 0; i < sample().fields.size(); ++i) {
    change([&](Key &key) { key.fields[i].value += "x"; });
    change([&](Key &key) { key.fields[i].value += "\n"; });
    change([&](Key &key) { key.fields[i].value += "\\n"; });
    change([&](Key &key) { key.fields[i].value += "\\"; });
    change([&](Key &key) { key.fields[i].value += '\0'; });
    change([&](Key &key) { key.fields[i].value += "\nmore=1"; });
    change([&](Key &key) { key.fields[i].name += "x"; });
    change([&](Key &key) { key.fields[i].name += "=y"; });
    change([&](Key &key) { key.fields.erase(key.fields.begin() + long(i)); });
    change([&](Key &key) { key.fields.insert(key.fields.begin() + long(i), key.fields[i]); });
    if (i) change([&](Key &key) { std::swap(key.fields[i], key.fields[i - 1]); });
  }
  change([](Key &key) { key.add("more", "1"); });
  std::set<std::string> texts, hashes;
  for (const Key &key : keys) {
    texts.insert(key.text());
    hashes.insert(key.hash());
    Key parsed;
    ASSERT_TRUE(parseKey(key.text(), parsed)) << key.text();
    EXPECT_EQ(parsed, key);
  }
  // Inserting a copy before or after the same field gives the same key only once per field; all else differs.
  std::set<std::string> different;
  for (size_t i = 0; i < keys.size(); ++i) {
    bool repeated = false;
    for (size_t j = 0; j < i; ++j) repeated |= keys[j] == keys[i];
    if (!repeated) different.insert(std::to_string(i));
  }
  EXPECT_EQ(texts.size(), different.size());
  EXPECT_EQ(hashes.size(), different.size());
  EXPECT_GT(different.size(), 40u);
}

TEST(CacheKey, RandomKeysSurviveTheRoundTrip) {
  std::mt19937_64 random{test::testSeed()};
  auto word = [&] {
    std::string text;
    for (uint64_t left = random() % 8; left; --left) text += "ab=\\\n\r\0en"[random() % 9];
    return text;
  };
  for (int i = 0; i < 2000; ++i) {
    Key key;
    key.kind = word();
    for (uint64_t left = random() % 5; left; --left) key.add(word(), word());
    Key parsed;
    ASSERT_TRUE(parseKey(key.text(), parsed)) << testing::PrintToString(key.text());
    ASSERT_EQ(parsed, key) << testing::PrintToString(key.text());
  }
}

// 16 processes with other environments and folders: one key.
TEST(CacheKey, DependsOnNothingAround) {
  test::TempFolder folder;
  std::string expected = sample().hash();
  std::vector<pid_t> children;
  for (int i = 0; i < 16; ++i)
    children.push_back(test::spawnChild([&] {
      setenv("HOME", fmt::format("/home{}", i).c_str(), 1);
      setenv("LANG", i % 2 ? "de_DE.UTF-8" : "C", 1);
      setenv("LC_ALL", i % 2 ? "tr_TR.UTF-8" : "POSIX", 1);
      setlocale(LC_ALL, "");
      std::filesystem::current_path(i % 2 ? folder.path : "/");
      return sample().hash() == expected ? 0 : 1;
    }));
  for (pid_t child : children) EXPECT_EQ(test::waitChild(child), 0);
}

} // namespace
} // namespace quern::cache
