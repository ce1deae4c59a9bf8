// Archives of cache entries (runtime/cache/Archive.h): there and back, and what a stranger's archive can do.
#include "tests/unit/cache_archive_support.h"
#include "tests/unit/cache_support.h"
#include <gmock/gmock.h>

using namespace quern;
using namespace quern::cache;
using namespace quern::cache::test;
using testing::HasSubstr;

namespace {

class CacheArchive : public testing::Test {
protected:
  std::mt19937_64 random{20260};
  MemoryStore from, to;
  std::vector<Key> keys = fill(from, 5, random);
};

/// The first reason that import gave, or what it stopped at.
std::string complaint(const Expected<ImportReport> &report) {
  if (!report) return report.error().str();
  if (!report->reasons.empty()) return report->reasons[0];
  return report->incomplete ? report->incomplete->str() : "none";
}

TEST_F(CacheArchive, RoundTrip) {
  std::string bytes = exported(from, keys);
  auto report = imported(to, bytes);
  ASSERT_TRUE(report) << report.error().str();
  EXPECT_EQ(complaint(report), "none");
  EXPECT_EQ(report->imported, 5);
  EXPECT_EQ(to.entries, from.entries);
  auto again = imported(to, bytes);
  EXPECT_EQ(again->present, 5);
  EXPECT_EQ(again->imported, 0);
  EXPECT_EQ(complaint(again), "none");
}

TEST_F(CacheArchive, SameEntriesGiveTheSameBytes) {
  std::vector<Key> other(keys.rbegin(), keys.rend());
  other.push_back(keys[0]);
  EXPECT_EQ(exported(from, keys), exported(from, other));
  imported(to, exported(from, keys)).operator bool();
  EXPECT_EQ(exported(to, keys), exported(from, keys));
  // The test's own writer gives the same members, so that what it spoils is what export writes.
  MemoryStore third;
  EXPECT_EQ(imported(third, tarOf(membersOf(from)))->imported, 5);
  EXPECT_EQ(third.entries, from.entries);
}

TEST_F(CacheArchive, EmptyAndMissing) {
  EXPECT_EQ(complaint(imported(to, exported(from, {}))), "none");
  keys.push_back(keyOf(77));
  MemoryFile file;
  auto report = exportArchive(from, keys, file.fd);
  EXPECT_EQ(report->entries, 5);
  EXPECT_EQ(report->missing, 1);
  EXPECT_EQ(imported(to, file.bytes())->imported, 5);
}

TEST_F(CacheArchive, WhatIsThereStays) {
  Content mine{{{"meta", "mine"}}};
  to.publish(keys[2], mine);
  auto report = imported(to, exported(from, keys));
  EXPECT_EQ(report->present, 1);
  EXPECT_EQ(report->imported, 4);
  EXPECT_EQ(*to.find(keys[2]), mine);
}

TEST_F(CacheArchive, AStoreThatKeepsNothing) {
  to.full = true;
  auto report = imported(to, exported(from, keys));
  EXPECT_EQ(report->unkept, 5);
  EXPECT_EQ(report->imported, 0);
}

TEST_F(CacheArchive, ForeignInput) {
  for (std::string bytes : {std::string(), std::string("garbage"), std::string(100000, 'x'),
                            std::string(4096, '\0'), tarOf({{"etc/passwd", "root"}}), tarOf({})}) {
    auto report = imported(to, bytes);
    ASSERT_FALSE(report);
    EXPECT_THAT(report.error().str(), HasSubstr("is no archive of cache entries"));
  }
  auto newer = imported(to, tarOf({{"quern-cache/format", "2\n"}}));
  ASSERT_FALSE(newer);
  EXPECT_THAT(newer.error().str(), HasSubstr("has format 2, expected 1; another version of Quern wrote it"));
  auto twice = imported(to, tarOf({{"inner", exported(from, keys)}}, true, true));
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().str(), HasSubstr("is compressed more than once"));
  EXPECT_TRUE(to.entries.empty());
}

TEST_F(CacheArchive, NamesThatLeaveTheArchive) {
  auto good = membersOf(from);
  std::string hash = keyOf(99).hash(), folder = "quern-cache/v1/" + hash.substr(0, 2) + "/";
  for (std::string name : {std::string("../../evil"),
                           std::string("/etc/cron.d/evil"),
                           folder + "../../../../evil.entry",
                           folder + hash,
                           folder + "./" + hash + ".entry",
                           "./" + folder + hash + ".entry",
                           "/" + folder + hash + ".entry",
                           folder + "../" + hash.substr(0, 2) + "/" + hash + ".entry",
                           "quern-cache/v1/zz/" + hash + ".entry",
                           "quern-cache/v2/" + hash.substr(0, 2) + "/" + hash + ".entry",
                           folder + std::string(32, 'G') + ".entry",
                           folder + hash.substr(0, 31) + ".entry",
                           "/" + hash + ".entry",
                           folder + "sub/" + hash + ".entry",
                           folder + hash + ".json",
                           folder + hash + ".entry.entry",
                           folder + hash + ".ENTRY",
                           folder + hash + "\n.entry",
                           std::string("quern-cache/../manifest"),
                           std::string("manifest"),
                           std::string(".entry"),
                           folder + std::string(300, 'n') + ".entry",
                           folder + "\u00fc",
                           hash + ".entry"}) {
    auto members = good;
    members.insert(members.begin() + 1, {name, encodeEntry(keyOf(99), {})}); // a whole entry
    to.entries.clear();
    auto report = imported(to, tarOf(members));
    ASSERT_TRUE(report);
    EXPECT_EQ(report->refused, 1) << name;
    EXPECT_THAT(complaint(report), testing::AnyOf(HasSubstr("is not the name of an entry"),
                                                  HasSubstr("is not the hash of its key")));
    EXPECT_EQ(report->imported, 5) << name; // the others are good, and stay so
    EXPECT_EQ(to.entries, from.entries) << name;
    for (const std::string &reason : report->reasons)
      for (char c : reason) EXPECT_TRUE(c >= ' ' && c < 127) << reason;
  }
}

TEST_F(CacheArchive, LinksDevicesFoldersAndHoles) {
  auto good = membersOf(from);
  std::string name = memberOf(keys[0]);
  std::vector<TarMember> strangers = {{name, "", AE_IFLNK, "/etc/passwd"},
                                      {name, "", AE_IFREG, "/etc/passwd", true},
                                      {name, "", AE_IFCHR},
                                      {name, "", AE_IFBLK},
                                      {name, "", AE_IFIFO},
                                      {name, "", AE_IFDIR}};
  for (const TarMember &stranger : strangers) {
    auto members = good;
    members.insert(members.begin() + 1, stranger);
    to.entries.clear();
    auto report = imported(to, tarOf(members));
    EXPECT_THAT(complaint(report), HasSubstr("is no plain file")) << stranger.type;
    EXPECT_EQ(report->imported, 5);
  }
  // Four bytes that claim to be a tebibyte.
  auto report = imported(to, tarOf({good[0], {name, "evil", AE_IFREG, "", false, int64_t(1) << 40}}));
  EXPECT_THAT(complaint(report), HasSubstr("holds more than"));
}

TEST_F(CacheArchive, BombsEndAtTheLimits) {
  ImportLimits limits{.entryBytes = 1 << 16, .totalBytes = 1 << 20, .entries = 50};
  // Compressed a thousandfold.
  Content zeros{{{"cubin", std::string(1 << 17, '\0')}}};
  from.entries.clear();
  from.publish(keys[0], zeros);
  std::string bytes = exported(from, {&keys[0], 1});
  EXPECT_LT(bytes.size(), 2000u);
  EXPECT_THAT(complaint(imported(to, bytes, limits)), HasSubstr("is larger than 65536 bytes"));
  // Many that are allowed one by one.
  zeros.sections[0].bytes.resize(60000);
  for (int i = 0; i < 40; ++i) from.publish(keyOf(i), zeros);
  auto report = imported(to, tarOf(membersOf(from)), limits);
  EXPECT_THAT(report->incomplete->str(), HasSubstr("holds more than 1048576 bytes"));
  EXPECT_LT(report->imported, 18);
  // Too many.
  MemoryStore many;
  fill(many, 60, random);
  EXPECT_THAT(imported(to, tarOf(membersOf(many)), limits)->incomplete->str(),
              HasSubstr("has too many entries"));
  std::vector<TarMember> junk(5000, {"quern-cache/junk", ""});
  junk.insert(junk.begin(), {std::string(packed::formatName), std::string(packed::formatText)});
  auto flood = imported(to, tarOf(junk), limits);
  EXPECT_THAT(flood->incomplete->str(), HasSubstr("has too many members"));
  EXPECT_EQ(flood->reasons.size(), ImportReport::maxReasons);
}

TEST_F(CacheArchive, SpoiltEntriesAreRefusedAlone) {
  auto good = membersOf(from);
  using Spoil = std::function<void(std::vector<TarMember> &)>;
  std::vector<std::pair<Spoil, const char *>> cases = {
      {[&](auto &m) { m[1].bytes[random() % m[1].bytes.size()] ^= 1; }, "is damaged"},
      {[&](auto &m) { m[1].bytes.pop_back(); }, "is damaged: wrong digest"},
      {[&](auto &m) { m[1].bytes += 'x'; }, "is damaged: wrong digest"},
      {[&](auto &m) { m[1].bytes.clear(); }, "is damaged: too short"},
      {[&](auto &m) { m[1].bytes = m[2].bytes; }, "its name is not the hash of its key"},
      {[&](auto &m) { m[1].name = m[2].name; }, "its name is not the hash of its key"},
  };
  for (auto &[spoil, message] : cases) {
    auto members = good;
    spoil(members);
    to.entries.clear();
    auto report = imported(to, tarOf(members));
    EXPECT_THAT(complaint(report), HasSubstr(message));
    EXPECT_EQ(report->imported, message[4] == 'n' && members[1].name == members[2].name ? 3 : 4) << message;
    EXPECT_THAT(report->incomplete->str(), HasSubstr("holds other entries than its manifest names"));
    for (auto &[text, content] : to.entries) EXPECT_EQ(content, from.entries[text]);
  }
}

/// Entries whose bytes are whole, but whose key is none, or another's.
TEST_F(CacheArchive, EntriesAreKeyedByTheirOwnKey) {
  auto with = [&](std::string name, std::string bytes) {
    auto members = membersOf(from);
    members.insert(members.begin() + 1, {std::move(name), std::move(bytes)});
    return imported(to, tarOf(members));
  };
  Content evil{{{"elf", "evil"}}};
  auto report = with(memberOf(keyOf(8)), encodeEntry(keyOf(9), evil));
  EXPECT_THAT(complaint(report), HasSubstr("its name is not the hash of its key"));
  EXPECT_FALSE(to.find(keyOf(8)) || to.find(keyOf(9)));
  // The bytes of a good entry, with its key's text spoilt and the digest made to fit again.
  std::string good = encodeEntry(keyOf(9), evil);
  for (std::string text : {"kernel", "arch=sm", "gpu\n"}) {
    std::string bytes = good.substr(0, good.size() - sizeof(Digest));
    size_t at = bytes.find(text);
    bytes[at + text.size() - 1] = '\\';
    Digest sum = digest(bytes);
    bytes.append(reinterpret_cast<const char *>(sum.data()), sum.size());
    EXPECT_THAT(complaint(with(memberOf(keyOf(9)), bytes)), HasSubstr("has a malformed key")) << text;
  }
  EXPECT_FALSE(to.find(keyOf(9)));
}

TEST_F(CacheArchive, CutOffAnywhere) {
  for (std::string bytes : {exported(from, keys), tarOf(membersOf(from))}) {
    for (int i = 0; i < 150; ++i) {
      size_t cut = i < 40 ? size_t(i) : random() % bytes.size();
      if (bytes[0] == 'q') cut = std::min(cut, bytes.size() - 4096); // the end of a plain tar is only padding
      to.entries.clear();
      auto report = imported(to, std::string_view(bytes).substr(0, cut));
      ASSERT_TRUE(!report || report->incomplete) << cut;
      for (auto &[text, content] : to.entries) ASSERT_EQ(content, from.entries[text]) << cut;
    }
  }
}

TEST_F(CacheArchive, ManifestNamesTheEntries) {
  auto good = membersOf(from);
  auto without = good;
  without.erase(without.begin() + 1);
  auto report = imported(to, tarOf(without));
  EXPECT_EQ(report->imported, 4);
  EXPECT_THAT(report->incomplete->str(), HasSubstr("holds other entries than its manifest"));
  auto other = good;
  other.back().bytes[40] ^= 1;
  EXPECT_THAT(imported(to, tarOf(other))->incomplete->str(),
              HasSubstr("holds other entries than its manifest"));
  auto after = good;
  after.push_back(good[1]);
  EXPECT_THAT(complaint(imported(to, tarOf(after))), HasSubstr("stands after the manifest"));
}

/// Random damage of the members, and of the bytes: what is kept is what was exported, whatever else happens.
TEST_F(CacheArchive, RandomDamage) {
  std::mt19937_64 random(testSeed());
  auto good = membersOf(from);
  std::string whole = exported(from, keys);
  ImportLimits limits{.entryBytes = 1 << 16, .totalBytes = 1 << 20, .entries = 50};
  int64_t kept = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bytes = whole;
    if (round % 3) {
      auto members = good;
      for (int edits = 1 + int(random() % 3); edits > 0 && !members.empty(); --edits) {
        size_t at = random() % members.size(), other = random() % members.size();
        switch (random() % 8) {
        case 0: members.erase(members.begin() + long(at)); break;
        case 1: std::swap(members[at], members[other]); break;
        case 2: members.insert(members.begin() + long(at), TarMember(members[other])); break;
        case 3: members[at].bytes = randomBytes(random, random() % 3000); break;
        case 4: members[at].bytes.resize(random() % (members[at].bytes.size() + 40)); break;
        case 5: members[at].name = members[other].name; break;
        case 6: members[at].type = random() % 2 ? AE_IFDIR : AE_IFIFO; break;
        default:
          for (std::string *text : {&members[at].name, &members[at].bytes})
            if (!text->empty()) (*text)[random() % text->size()] = "/.\0\n aZ9"[random() % 8];
        }
      }
      bytes = tarOf(members, random() % 2);
    }
    if (round % 3 != 1)
      for (int flips = int(random() % 4); flips >= 0 && !bytes.empty(); --flips)
        bytes[random() % bytes.size()] ^= char(1 << random() % 8);
    to.entries.clear();
    auto report = imported(to, bytes, limits);
    for (auto &[text, content] : to.entries) ASSERT_EQ(content, from.entries[text]) << "round " << round;
    if (report) kept += report->imported;
  }
  EXPECT_GT(kept, 500); // the damage was not so great that nothing was tested
}

} // namespace
