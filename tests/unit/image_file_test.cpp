// Images as parts of a cache entry: what goes in comes out, and what is not an image is refused.
#include "runtime/driver/ElfSymbols.h"
#include "runtime/launch/ImageFile.h"
#include "runtime/launch/LoadCode.h"
#include <cstring>
#include <elf.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <random>

namespace quern {
namespace {

using driver::definesFunction, driver::machineCuda, driver::machineX86;

using Json = nlohmann::ordered_json;

/// A small ELF file with one defined and one undefined function.
std::string tinyElf(uint16_t machine, const std::vector<std::string> &functions) {
  std::string strings(1, '\0'), symbols(sizeof(Elf64_Sym), '\0');
  auto add = [&](const std::string &name, uint16_t section) {
    Elf64_Sym symbol{};
    symbol.st_name = uint32_t(strings.size()), symbol.st_shndx = section;
    symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
    strings += name + '\0';
    symbols.append(reinterpret_cast<char *>(&symbol), sizeof symbol);
  };
  for (auto &name : functions) add(name, 1);
  add("absent", SHN_UNDEF);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64, header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_machine = machine, header.e_shentsize = sizeof(Elf64_Shdr), header.e_shnum = 3;
  Elf64_Shdr sections[3]{};
  sections[1].sh_type = SHT_STRTAB, sections[1].sh_offset = sizeof header;
  sections[1].sh_size = strings.size();
  sections[2].sh_type = SHT_SYMTAB, sections[2].sh_link = 1;
  sections[2].sh_offset = sizeof header + strings.size(), sections[2].sh_size = symbols.size();
  header.e_shoff = sizeof header + strings.size() + symbols.size();
  return std::string(reinterpret_cast<char *>(&header), sizeof header) + strings + symbols +
         std::string(reinterpret_cast<char *>(sections), sizeof sections);
}

jit::CompiledCpu someCpu() {
  jit::CompiledCpu c;
  c.image = {"isa=avx2 rows=4", "+avx2,-amx", 45, true, 4096, 3, 65536, 128, true, nullptr, nullptr};
  c.elf = tinyElf(machineX86, {"k_main", "k_prepare"});
  return c;
}

jit::GpuImage someGpu() {
  jit::GpuImage i;
  i.entry = "k", i.arch = "sm_90a", i.schedule = "bm=128", i.ptx = ".version 8.3\n", i.ptxasLog = "log\n\x01";
  i.cubin = tinyElf(machineCuda, {"k"});
  for (int kind = 0; kind <= jit::GpuParam::Decoded; ++kind)
    i.params.push_back({jit::GpuParam::Kind(kind), kind % 3 - 1, kind});
  i.threads = 384, i.cluster = 2, i.ctasPerSm = 1, i.registers = 168, i.smemBytes = 200000, i.tiles = 46;
  i.x = {0, true, true, DType::F16, 2880, 64};
  i.lowRank = {{0, 3, true, false, 16, 2880}, {1, 4, false, true, 8, 64}};
  i.combine = {{2, 2880}};
  i.decode = {{2, true, true, 5760, 2880, 128, DType::F16}};
  return i;
}

TEST(ImageFile, ACpuImageComesBackWhole) {
  jit::CompiledCpu c = someCpu();
  auto back = cpuFromContent(toContent(c), "k");
  ASSERT_TRUE(back);
  // Stops compiling when the record gains a field.
  auto all = [](const jit::CpuImage &image) {
    auto &[schedule, features, bands, ordered, work, prepareMin, scratch, maxRows, denormal, prepare, main] =
        image;
    EXPECT_EQ(prepare, nullptr);
    EXPECT_EQ(main, nullptr);
    return std::tuple(schedule, features, bands, ordered, work, prepareMin, scratch, maxRows, denormal);
  };
  EXPECT_EQ(all(back->image), all(c.image));
  EXPECT_EQ(back->elf, c.elf);
  EXPECT_EQ(toContent(*back), toContent(c));
}

TEST(ImageFile, AGpuImageComesBackWhole) {
  jit::GpuImage i = someGpu();
  auto back = gpuFromContent(toContent(i));
  ASSERT_TRUE(back);
  auto &[entry, arch, schedule, ptx, cubin, log, path, params, threads, cluster, ctas, registers, smem, tiles,
         x, lowRank, combine, decode, simEntry] = *back;
  EXPECT_EQ(std::tie(entry, arch, schedule, ptx, cubin, log),
            std::tie(i.entry, i.arch, i.schedule, i.ptx, i.cubin, i.ptxasLog));
  EXPECT_EQ(std::tie(threads, cluster, ctas, registers, smem, tiles),
            std::tie(i.threads, i.cluster, i.ctasPerSm, i.registers, i.smemBytes, i.tiles));
  ASSERT_EQ(params.size(), i.params.size());
  for (size_t p = 0; p < params.size(); ++p) {
    auto &[kind, operand, index] = params[p];
    EXPECT_EQ(std::tie(kind, operand, index),
              std::tie(i.params[p].kind, i.params[p].operand, i.params[p].index));
  }
  auto &[operand, byToken, sorted, dtype, columns, boxRows] = x;
  EXPECT_EQ(std::tie(operand, byToken, sorted, dtype, columns, boxRows),
            std::tie(i.x.operand, i.x.byToken, i.x.sorted, i.x.dtype, i.x.columns, i.x.boxRows));
  ASSERT_EQ(lowRank.size(), 2u);
  for (size_t s = 0; s < 2; ++s) {
    auto &[lhs, rhs, token, expert, stepColumns, reduced] = lowRank[s];
    auto &w = i.lowRank[s];
    EXPECT_EQ(std::tie(lhs, rhs, token, expert, stepColumns, reduced),
              std::tie(w.lhs, w.rhs, w.byToken, w.byExpert, w.columns, w.reduced));
  }
  ASSERT_EQ(combine.size(), 1u);
  EXPECT_EQ(combine[0].output, 2);
  EXPECT_EQ(combine[0].columns, 2880);
  ASSERT_EQ(decode.size(), 1u);
  auto &[packed, byExpert, halved, rows, decodeColumns, tileRows, decodeType] = decode[0];
  auto &d = i.decode[0];
  EXPECT_EQ(std::tie(packed, byExpert, halved, rows, decodeColumns, tileRows, decodeType),
            std::tie(d.packed, d.byExpert, d.halved, d.rows, d.columns, d.tileRows, d.dtype));
  EXPECT_EQ(path, "") << "no path is kept";
  EXPECT_EQ(simEntry, nullptr);
  EXPECT_EQ(toContent(*back), toContent(i));
  i.cubin.clear();
  EXPECT_TRUE(gpuFromContent(toContent(i))) << "PTX alone is an image";
}

/// Every value of the JSON tree in turn, replaced by `wrong`; true when each makes the entry no image.
template <class Refused> void eachValue(Json &root, Json &at, const std::string &path, Refused refused) {
  if (at.is_structured())
    for (auto &[name, child] : at.items()) eachValue(root, child, path + "/" + name, refused);
  Json kept = at;
  auto expectRefused = [&](Json wrong) {
    at = std::move(wrong);
    EXPECT_TRUE(refused(root)) << path << " as " << at.dump();
    at = kept;
  };
  expectRefused(nullptr);
  expectRefused(1.5);
  expectRefused(kept.is_string() ? Json(7) : Json("seven"));
  expectRefused(kept.is_boolean() ? Json(0) : Json(true));
  if (kept.is_number()) expectRefused(uint64_t(1) << 63);
  if (kept.is_object()) {
    expectRefused([&] {
      Json more = kept;
      more["quern-test"] = 1;
      return more;
    }());
    for (auto &[name, child] : kept.items())
      expectRefused([&] {
        Json less = kept;
        less.erase(name);
        return less;
      }());
  }
}

TEST(ImageFile, AWrongFieldMakesItNoImage) {
  cache::Content cpu = toContent(someCpu()), gpu = toContent(someGpu());
  Json meta = Json::parse(*cpu.find("meta"));
  eachValue(meta, meta, "cpu", [&](const Json &json) {
    cpu.sections[0].bytes = json.dump();
    return !cpuFromContent(cpu, "k");
  });
  meta = Json::parse(*gpu.find("meta"));
  eachValue(meta, meta, "gpu", [&](const Json &json) {
    gpu.sections[0].bytes = json.dump();
    return !gpuFromContent(gpu);
  });
}

TEST(ImageFile, NumbersOutOfRangeMakeItNoImage) {
  auto gpu = [](auto change) {
    jit::GpuImage image = someGpu();
    change(image);
    return gpuFromContent(toContent(image)).has_value();
  };
  EXPECT_FALSE(gpu([](auto &i) { i.threads = 0; }));
  EXPECT_FALSE(gpu([](auto &i) { i.threads = 1025; }));
  EXPECT_FALSE(gpu([](auto &i) { i.cluster = 17; }));
  EXPECT_FALSE(gpu([](auto &i) { i.tiles = 0; }));
  EXPECT_FALSE(gpu([](auto &i) { i.smemBytes = -1; }));
  EXPECT_FALSE(gpu([](auto &i) { i.entry = ""; }));
  EXPECT_FALSE(gpu([](auto &i) { i.entry = "other"; })) << "the cubin does not have it";
  EXPECT_FALSE(gpu([](auto &i) { i.params[0].operand = -2; }));
  EXPECT_FALSE(gpu([](auto &i) { i.combine[0].columns = 0; }));
  EXPECT_FALSE(gpu([](auto &i) { i.decode[0].packed = -1; }));
  EXPECT_FALSE(gpu([](auto &i) { i.decode[0].rows = 0; }));
  EXPECT_FALSE(gpu([](auto &i) { i.decode[0].columns = int64_t(1) << 40; })) << "its bytes would overflow";
  EXPECT_FALSE(gpu([](auto &i) { i.decode[0].tileRows = 32; }));
  EXPECT_FALSE(gpu([](auto &i) { i.decode.push_back(i.decode[0]); })) << "there is one workspace";
  EXPECT_FALSE(gpu([](auto &i) { i.ptx = ""; }));
  jit::CompiledCpu cpu = someCpu();
  cpu.image.bands = 0;
  EXPECT_FALSE(cpuFromContent(toContent(cpu), "k"));
  EXPECT_FALSE(cpuFromContent(toContent(someCpu()), "other"));
  EXPECT_TRUE(cpuFromContent(toContent(someCpu()), "k"));
}

TEST(ImageFile, APartThatIsMissingMakesItNoImage) {
  for (size_t i = 0; i < 2; ++i) {
    cache::Content content = toContent(someCpu());
    content.sections.erase(content.sections.begin() + long(i));
    EXPECT_FALSE(cpuFromContent(content, "k")) << i;
  }
  for (size_t i = 0; i < 4; ++i) {
    cache::Content content = toContent(someGpu());
    content.sections.erase(content.sections.begin() + long(i));
    EXPECT_FALSE(gpuFromContent(content)) << i;
  }
}

TEST(ElfSymbols, EveryCutAndEveryFlipIsSurvived) {
  std::string elf = tinyElf(machineCuda, {"f", "kernel"});
  EXPECT_TRUE(definesFunction(elf, machineCuda, "kernel"));
  EXPECT_FALSE(definesFunction(elf, machineX86, "kernel"));
  EXPECT_FALSE(definesFunction(elf, machineCuda, "kerne"));
  EXPECT_FALSE(definesFunction(elf, machineCuda, "absent")) << "not defined here";
  EXPECT_FALSE(definesFunction(elf, machineCuda, ""));
  for (size_t size = 0; size < elf.size(); ++size)
    EXPECT_FALSE(definesFunction(std::string(elf, 0, size), machineCuda, "kernel")) << size;
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) { // no read outside the bytes: the sanitizer build watches
    std::string damaged = elf;
    for (int flips = 0; flips < 3; ++flips) damaged[random() % damaged.size()] = char(random());
    definesFunction(damaged, machineCuda, "kernel");
  }
}

TEST(LoadCode, BytesThatAreNoSharedObjectAreAnError) {
  for (std::string bytes : {std::string(), std::string("garbage"), tinyElf(machineX86, {"f"})}) {
    auto code = loadCode(bytes);
    ASSERT_FALSE(code);
    EXPECT_EQ(code.error().kind, ErrorKind::System);
    EXPECT_TRUE(code.error().message.starts_with("the compiled kernel cannot be opened: "))
        << code.error().str();
  }
}

} // namespace
} // namespace quern
