// What `quern cache` shows and does: listing, verifying, clearing, the nearest entry.
#include "cache_support.h"
#include "runtime/cache/Listing.h"
#include <fmt/format.h>
#include <sys/stat.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::numbered;
using test::TestCache;
using testing::HasSubstr;

struct CacheListing : testing::Test {
  TestCache cache;
  std::unique_ptr<DiskStore> store = cache.open();
  Folder folder = cache.opened();
  std::filesystem::path pathOf(const Key &key) const {
    return std::filesystem::path(cache.folder) / entryPath(entryName(key.text()));
  }
};

TEST_F(CacheListing, AnEmptyFolder) {
  EXPECT_TRUE(listNames(folder).empty());
  EXPECT_EQ(verify(folder).good, 0);
  EXPECT_FALSE(nearest(folder, numbered(1)));
  EXPECT_EQ(clear(folder).removed, 0);
}

TEST_F(CacheListing, NamesKeysAndContents) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
  ASSERT_TRUE(store->publish(numbered(9, "tuning"), contentOf(9)));
  std::vector<ListedEntry> names = listNames(folder);
  ASSERT_EQ(names.size(), 6u);
  for (size_t i = 1; i < names.size(); ++i) EXPECT_LT(names[i - 1].name, names[i].name);
  std::vector<ListedEntry> entries = listEntries(folder);
  ASSERT_EQ(entries.size(), 6u);
  for (ListedEntry &entry : entries) {
    EXPECT_EQ(entry.state, EntryState::Good) << entry.why;
    EXPECT_EQ(entry.key.hash(), entry.hash());
    EXPECT_EQ(entry.key.text(), entry.keyText);
    EXPECT_EQ(entry.size, std::filesystem::file_size(cache.folder + "/" + entry.path));
    EXPECT_LT(std::abs(entry.modified - time(nullptr)), 60);
    EXPECT_TRUE(entry.content.sections.empty());
    ASSERT_TRUE(readEntry(folder, entry));
    EXPECT_EQ(store->find(entry.key), entry.content);
  }
}

TEST_F(CacheListing, VerifyNamesEveryFault) {
  test::Notices notices;
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
  std::string bytes = test::readBytes(pathOf(numbered(1)));
  test::writeBytes(pathOf(numbered(1)), bytes.substr(0, bytes.size() / 2));
  test::writeBytes(pathOf(numbered(2)), test::readBytes(pathOf(numbered(3))));
  chmod(pathOf(numbered(4)).c_str(), 0666);
  test::writeBytes(pathOf(numbered(5)).parent_path() / ".tmp-1", "left");
  std::filesystem::create_directories(cache.folder + "/v9/ab");
  test::writeBytes(cache.folder + "/v9/ab/entry", "of a later version");
  VerifyReport report = verify(folder);
  EXPECT_EQ(report.good, 3);
  EXPECT_EQ(report.temporary, 1);
  EXPECT_EQ(report.otherGenerations, 1);
  std::map<std::string, EntryState> states;
  for (const ListedEntry &entry : report.bad) {
    states[entry.name] = entry.state;
    EXPECT_NE(entry.why, "");
  }
  EXPECT_EQ(states.size(), 3u);
  EXPECT_EQ(states[entryName(numbered(1).text())], EntryState::Damaged);
  EXPECT_EQ(states[entryName(numbered(2).text())], EntryState::Misnamed);
  EXPECT_EQ(states[entryName(numbered(4).text())], EntryState::Untrusted);
  EXPECT_EQ(verify(folder).bad.size(), 3u) << "verify changes nothing";
  for (const ListedEntry &entry : report.bad) EXPECT_TRUE(removeEntry(folder, entry));
  EXPECT_TRUE(verify(folder).bad.empty());
  EXPECT_EQ(verify(folder).good, 3);
}

TEST_F(CacheListing, RemovesOnlyTheFileThatWasRead) {
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  std::vector<ListedEntry> entries = listEntries(folder);
  ASSERT_EQ(entries.size(), 1u);
  std::filesystem::path path = pathOf(numbered(1));
  std::filesystem::copy_file(path, cache.top.at("copy"));
  std::filesystem::rename(cache.top.at("copy"), path); // another process has published anew
  chmod(path.c_str(), 0600);
  EXPECT_FALSE(removeEntry(folder, entries[0]));
  EXPECT_TRUE(store->find(numbered(1)));
}

TEST_F(CacheListing, ClearsSomeOrAll) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(store->publish(numbered(i, i % 2 ? "cpu" : "gpu"), contentOf(i)));
  test::writeBytes(cache.folder + "/mine.txt", "a file of the user's");
  ClearReport report = clear(folder, [](const ListedEntry &entry) { return entry.key.kind == "cpu"; });
  EXPECT_EQ(report.removed, 2);
  EXPECT_GT(report.bytes, 6000u);
  EXPECT_EQ(verify(folder).good, 2);
  test::writeBytes(pathOf(numbered(0)).parent_path() / ".tmp-1", "left");
  EXPECT_EQ(clear(folder).removed, 3);
  EXPECT_EQ(cache.files().size(), 1u);
}

TEST_F(CacheListing, TheNearestEntryAndItsFirstDifference) {
  auto keyOf = [](std::vector<Key::Field> fields, const char *kind = "gpu") {
    Key key;
    key.kind = kind;
    key.fields = std::move(fields);
    return key;
  };
  Key wanted = keyOf({{"kernel", "f"}, {"schedule", "bm=128"}, {"arch", "sm_90a"}, {"ptxas", "13.0"}});
  Key far = keyOf({{"kernel", "g"}, {"schedule", "bm=64"}, {"arch", "sm_90a"}, {"ptxas", "13.0"}});
  Key near = keyOf({{"kernel", "f"}, {"schedule", "bm=128"}, {"arch", "sm_90a"}, {"ptxas", "12.9"}});
  Key otherKind = keyOf(wanted.fields, "cpu");
  for (const Key &key : {far, near, otherKind}) ASSERT_TRUE(store->publish(key, contentOf(1)));
  std::optional<Nearest> found = nearest(folder, wanted);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->entry.key, near);
  EXPECT_EQ(found->differing, 1u);
  ASSERT_TRUE(found->first);
  EXPECT_EQ(found->first->field, "ptxas");
  EXPECT_EQ(found->first->ours, "13.0");
  EXPECT_EQ(found->first->theirs, "12.9");
  ASSERT_TRUE(store->publish(wanted, contentOf(2)));
  EXPECT_EQ(nearest(folder, wanted)->differing, 0u);
  EXPECT_FALSE(nearest(folder, wanted)->first);
  EXPECT_FALSE(nearest(folder, keyOf({}, "device")));
  // Fields that one of them lacks.
  Key more = wanted;
  more.add("linker", "22");
  EXPECT_EQ(firstDifference(more, wanted)->field, "linker");
  EXPECT_EQ(firstDifference(more, wanted)->theirs, "(none)");
  EXPECT_EQ(firstDifference(wanted, more)->ours, "(none)");
  EXPECT_EQ(firstDifference(wanted, otherKind)->field, "kind");
  EXPECT_FALSE(firstDifference(wanted, wanted));
}

} // namespace
} // namespace quern::cache
