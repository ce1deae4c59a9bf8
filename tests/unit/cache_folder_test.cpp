// Which folder is used and which is not: order of the variables, owners, modes, links, network file systems.
#include "cache_support.h"
#include "runtime/cache/Folder.h"
#include <atomic>
#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::cache {
namespace {

using test::TempFolder;
using testing::HasSubstr;

struct CacheFolder : testing::Test {
  TempFolder top;
  Places places;
  void SetUp() override { places.temporary = make("tmp", 01777); }
  std::string make(const std::string &name, mode_t mode = 0700) {
    std::filesystem::create_directories(top.path / name);
    EXPECT_EQ(chmod(top.at(name).c_str(), mode), 0);
    return top.at(name);
  }
  /// Uses the private temporary folder, and says why.
  void expectTemporary(const char *why) {
    FolderChoice choice = chooseFolder(places);
    EXPECT_EQ(choice.source, "temporary");
    ASSERT_TRUE(choice.folder);
    EXPECT_EQ(choice.folder->path, fmt::format("{}/quern-{}/cache", places.temporary, geteuid()));
    EXPECT_THAT(choice.warning, HasSubstr(why));
    EXPECT_THAT(choice.warning, HasSubstr("Set QUERN_CACHE_DIR"));
  }
  void expectUsed(const std::string &path, const char *source) {
    FolderChoice choice = chooseFolder(places);
    EXPECT_EQ(choice.warning, "");
    EXPECT_EQ(choice.source, source);
    ASSERT_TRUE(choice.folder);
    EXPECT_EQ(choice.folder->path, path);
    EXPECT_TRUE(choice.folder->writable);
    struct stat status;
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);
  }
};

TEST_F(CacheFolder, OrderOfTheVariables) {
  places.home = make("home");
  expectUsed(top.at("home/.cache/quern"), "HOME");
  places.xdgCacheHome = top.at("xdg");
  expectUsed(top.at("xdg/quern"), "XDG_CACHE_HOME");
  places.cacheDir = top.at("own/deep//folder/");
  expectUsed(top.at("own/deep//folder"), "QUERN_CACHE_DIR");
}

TEST_F(CacheFolder, ARelativeXdgPathIsIgnored) {
  struct Here { // whatever goes wrong lies in the test's own folder
    std::filesystem::path before = std::filesystem::current_path();
    ~Here() { std::filesystem::current_path(before); }
  } here;
  std::filesystem::current_path(top.path);
  places.xdgCacheHome = "cache";
  places.home = make("home");
  expectUsed(top.at("home/.cache/quern"), "HOME");
  EXPECT_FALSE(std::filesystem::exists("cache/quern"));
  places.home.reset();
  expectTemporary("no home folder");
}

TEST_F(CacheFolder, NoHome) { expectTemporary("no home folder"); }
TEST_F(CacheFolder, HomeIsTheRoot) {
  for (const char *home : {"/", "//", "relative"}) {
    places.home = home;
    expectTemporary("no home folder");
  }
}
TEST_F(CacheFolder, HomeDoesNotExist) {
  places.home = top.at("nowhere");
  expectTemporary("does not exist");
  EXPECT_FALSE(std::filesystem::exists(top.path / "nowhere"));
}

TEST_F(CacheFolder, ThePathIsAFile) {
  test::writeBytes(top.path / "file", "x");
  places.cacheDir = top.at("file");
  expectTemporary("'file' is not a folder");
  places.cacheDir = top.at("file/below");
  expectTemporary("'file' is not a folder");
}

TEST_F(CacheFolder, OthersCanWriteIt) {
  for (mode_t mode : {0777, 0707, 0770, 01777, 0722}) {
    places.cacheDir = make("open", mode);
    expectTemporary("others can write it");
  }
  for (mode_t mode : {0700, 0750, 0755}) {
    places.cacheDir = make("open", mode);
    EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR") << mode;
  }
}

TEST_F(CacheFolder, OthersCanWriteAParent) {
  make("parent/mine");
  places.cacheDir = top.at("parent/mine");
  for (mode_t mode : {0777, 0707, 02777}) {
    make("parent", mode);
    expectTemporary("'parent': others can write it");
  }
  make("parent", 01777); // sticky: as /tmp
  EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR");
}

TEST_F(CacheFolder, AGroupOfOthersCanWriteAParent) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a folder to another group";
  make("parent/mine");
  places.cacheDir = top.at("parent/mine");
  make("parent", 0775);
  EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR") << "the user's own group";
  ASSERT_EQ(chown(top.at("parent").c_str(), 0, 12345), 0);
  make("parent", 0775);
  expectTemporary("'parent': others can write it");
}

TEST_F(CacheFolder, SomebodyElsesFolder) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  places.cacheDir = make("theirs");
  ASSERT_EQ(chown(top.at("theirs").c_str(), 12345, 12345), 0);
  expectTemporary("it belongs to user 12345, not to 0"); // root's tool does not write a user's cache
  make("theirs/mine");
  places.cacheDir = top.at("theirs/mine");
  expectTemporary("'theirs': it belongs to user 12345, not to 0");
}

TEST_F(CacheFolder, PlantedLinks) {
  make("target");
  std::filesystem::create_directory_symlink(top.path / "target", top.path / "link");
  places.cacheDir = top.at("link");
  expectTemporary("symbolic link");
  places.cacheDir = top.at("link/");
  expectTemporary("symbolic link");
  EXPECT_TRUE(std::filesystem::is_empty(top.path / "target"));
  // A link of our own on the way is followed: homes and scratch disks are often links.
  places.cacheDir = top.at("link/cache");
  EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR");
  EXPECT_TRUE(std::filesystem::exists(top.path / "target/cache"));
  std::filesystem::create_directory_symlink("link", top.path / "second"); // relative
  places.cacheDir = top.at("second/cache");
  EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR");
  std::filesystem::create_directory_symlink("loop", top.path / "loop");
  places.cacheDir = top.at("loop/cache");
  expectTemporary("cannot be followed");
  if (geteuid() != 0) return;
  ASSERT_EQ(lchown(top.at("link").c_str(), 12345, 12345), 0);
  places.cacheDir = top.at("link/cache");
  expectTemporary("somebody else's symbolic link");
}

TEST_F(CacheFolder, NoPrivateFolderEither) {
  places.temporary = make("open", 0777); // not sticky
  FolderChoice choice = chooseFolder(places);
  EXPECT_EQ(choice.source, "none");
  EXPECT_FALSE(choice.folder);
  EXPECT_THAT(choice.warning, HasSubstr("not kept"));
}

TEST_F(CacheFolder, APlantedPrivateFolderIsNotUsed) {
  std::string planted = fmt::format("tmp/quern-{}", geteuid());
  make(planted, 0777);
  EXPECT_EQ(chooseFolder(places).source, "none");
  EXPECT_FALSE(openLockFolder(places));
  std::filesystem::remove_all(top.path / planted);
  make("elsewhere");
  std::filesystem::create_directory_symlink(top.path / "elsewhere", top.path / planted);
  EXPECT_FALSE(openLockFolder(places));
}

TEST_F(CacheFolder, LocksAreNodeLocal) {
  places.xdgRuntimeDir = make("run");
  EXPECT_EQ(openLockFolder(places)->path, top.at("run/quern"));
  places.xdgRuntimeDir = make("run", 0777);
  std::string own = fmt::format("{}/quern-{}", places.temporary, geteuid());
  EXPECT_EQ(openLockFolder(places)->path, own);
  places.xdgRuntimeDir = "run";
  EXPECT_EQ(openLockFolder(places)->path, own);
}

// Every type that counts as a network: files are synced before they are published, and a lock folder is not
// taken from there.
TEST_F(CacheFolder, NetworkFileSystems) {
  std::vector<long> network = {0x6969,     0x517B,     0xFF534D42, 0xFE534D42, 0x0BD00BD0, 0x47504653,
                               0x00C36400, 0x5346414F, 0x6B414653, 0x73757245, 0x01021997, 0x65735546,
                               0x19830326, 0x7461636F, 0x01161970, 0x20030528, 0xAAD7AAEA, 0x564C,
                               0xBEEFDEAD, 0x013111A8, 0x786F4256};
  std::vector<long> local = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0x2FC12FC1, 0xF2F52010};
  places.xdgRuntimeDir = make("run");
  places.cacheDir = top.at("cache");
  auto check = [&](long type, bool expected) {
    sys::setFileSystemType(type);
    EXPECT_EQ(chooseFolder(places).folder->network, expected) << std::hex << type;
    EXPECT_EQ(openLockFolder(places)->path == top.at("run/quern"), !expected) << std::hex << type;
    test::TestCache cache;
    auto store = cache.open();
    static std::atomic<int> syncs;
    syncs = 0;
    sys::setHook([](sys::Call call) {
      syncs += call == sys::Call::Sync;
      return sys::Fault{};
    });
    EXPECT_TRUE(store->publish(test::numbered(1), test::contentOf(1)));
    sys::setHook(nullptr);
    EXPECT_EQ(syncs, expected ? 1 : 0);
    EXPECT_TRUE(store->find(test::numbered(1)));
  };
  for (long type : network) check(type, true);
  for (long type : network) check(long(int(type)), true); // f_type is signed on some machines
  for (long type : local) check(type, false);
  sys::setFileSystemType(0);
}

/// Runs `body` as user 12345 without groups, in a child. For root only.
int asStranger(const std::function<int()> &body) {
  return test::waitChild(test::spawnChild([&] {
    if (setgroups(0, nullptr) != 0 || setresgid(12345, 12345, 12345) != 0 ||
        setresuid(12345, 12345, 12345) != 0)
      return 100;
    return body();
  }));
}

// docker --user 12345: no HOME, no entry in passwd.
TEST_F(CacheFolder, AnArbitraryUserWithoutHome) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become user 12345";
  make(".", 0755);
  EXPECT_EQ(asStranger([&] {
              FolderChoice choice = chooseFolder(places);
              if (choice.source != "temporary" || !choice.folder) return 1;
              StoreOptions options;
              options.folder = std::move(*choice.folder);
              options.limitBytes = UINT64_MAX;
              options.locks = std::make_shared<LockFolder>(openLockFolder(places));
              if (!options.locks->usable()) return 2;
              DiskStore store(std::move(options));
              bool made = false;
              auto make = [] { return Expected<Content>(test::contentOf(1)); };
              if (!store.findOrMake(test::numbered(1), make, &made) || !made) return 3;
              if (!store.findOrMake(test::numbered(1), make, &made) || made) return 4;
              return 0;
            }),
            0);
  // --read-only: nothing can be written anywhere.
  make("tmp", 0755);
  std::filesystem::remove_all(top.path / "tmp/quern-12345");
  EXPECT_EQ(asStranger([&] { return chooseFolder(places).source == "none" ? 0 : 1; }), 0);
}

// A folder in an image layer: root's, read only to us. It is read; nothing is written, and nobody waits.
TEST_F(CacheFolder, AReadOnlyFolderIsRead) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can make a folder that its user cannot write";
  test::TestCache cache;
  chmod(cache.top.path.c_str(), 0755);
  ASSERT_TRUE(cache.open()->publish(test::numbered(1), test::contentOf(1)));
  for (const auto &each : std::filesystem::recursive_directory_iterator(cache.top.path))
    chmod(each.path().c_str(), each.is_directory() ? 0755 : 0644);
  EXPECT_EQ(asStranger([&] {
              StoreOptions options;
              Expected<Folder> folder = openFolder(cache.folder, true);
              if (!folder || folder->writable) return 1;
              options.folder = std::move(*folder);
              options.limitBytes = 1 << 20;
              options.locks = std::make_shared<LockFolder>(openFolder(cache.locks, true));
              if (options.locks->usable()) return 2;
              DiskStore store(std::move(options));
              if (store.find(test::numbered(1)) != test::contentOf(1)) return 3;
              if (!store.publish(test::numbered(1), test::contentOf(1))) return 4; // it is there
              if (store.publish(test::numbered(2), test::contentOf(2))) return 5;
              bool made = false;
              auto result = store.findOrMake(
                  test::numbered(2), [] { return Expected<Content>(test::contentOf(2)); }, &made);
              if (!result || !made || *result != test::contentOf(2)) return 6;
              store.discard(test::numbered(1));
              if (!store.find(test::numbered(1))) return 7;
              return 0;
            }),
            0);
}

// Within a good folder, too: what others could have written is not believed.
TEST_F(CacheFolder, EntriesAndShardsThatOthersCanWrite) {
  test::Notices notices;
  test::TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(test::numbered(1), test::contentOf(1)));
  std::filesystem::path file = cache.files()[0];
  auto hidden = [&](const std::filesystem::path &path, mode_t open, mode_t closed) {
    chmod(path.c_str(), open);
    EXPECT_FALSE(store->find(test::numbered(1)));
    EXPECT_FALSE(store->publish(test::numbered(1), test::contentOf(1)));
    chmod(path.c_str(), closed);
    EXPECT_TRUE(store->find(test::numbered(1)));
  };
  hidden(file, 0666, 0600);
  hidden(file, 0620, 0600);
  hidden(file.parent_path(), 0777, 0700);
  hidden(file.parent_path().parent_path(), 0770, 0700);
  EXPECT_EQ(notices.texts().size(), 1u);
}

} // namespace
} // namespace quern::cache
