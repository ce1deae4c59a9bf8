// The schedule record and the reading of CPU features: what parses, what is refused and why.
#include "codegen/cpu/Schedule.h"
#include "runtime/launch/CpuFeatures.h"
#include <gtest/gtest.h>
#include <random>

namespace quern::cpu {
namespace {

constexpr Isa isas[] = {Isa::Base, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx};
constexpr const char *avx512 = "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512dq";

TEST(Schedule, DefaultsAreLegalAndPrint) {
  for (Isa isa : isas) {
    Schedule s = defaultSchedule(isa);
    EXPECT_TRUE(s.validate()) << s.str();
    EXPECT_EQ(s.isa, isa);
    EXPECT_EQ(s.dot == Dot::Bf16, isa >= Isa::Avx512Bf16);
    EXPECT_EQ(s.tile > 0, isa == Isa::Amx);
    auto back = Schedule::parse(s.str(), defaultSchedule(Isa::Base));
    ASSERT_TRUE(back) << back.error().str();
    EXPECT_EQ(back->str(), s.str());
  }
  Schedule s;
  s.isa = Isa::Amx, s.dot = Dot::Bf16, s.lanes = 16, s.rows = 2, s.tokens = 5, s.fused = 1, s.decoded = 48,
  s.tile = 7;
  s.chunk = 9, s.band = 96, s.segment = 160;
  EXPECT_EQ(
      s.str(),
      "cpu isa=amx dot=bf16 lanes=16 rows=2 tokens=5 fused=1 decoded=48 tile=7 chunk=9 band=96 segment=160");
}

TEST(Schedule, EveryLegalRecordRoundTrips) {
  std::mt19937_64 random(7);
  auto pick = [&](std::initializer_list<int64_t> values) {
    return *(values.begin() + random() % values.size());
  };
  int legal = 0;
  for (int i = 0; i < 20000; ++i) {
    Schedule s = defaultSchedule(isas[random() % 5]);
    s.dot = random() % 2 ? s.dot : Dot::F32;
    s.rows = pick({2, 4, 8, 16}), s.tokens = pick({1, 2, 3, 4, 5, 6, 7, 8}), s.fused = pick({0, 1, 2, 3, 4});
    s.decoded = pick({4, 31, 4096}), s.chunk = pick({1, 5, 64}), s.band = pick({32, 96, 1024});
    s.segment = pick({16, 528, 4096}), s.tile = pick({0, 0, 1, 100});
    auto back = Schedule::parse(s.str(), defaultSchedule(Isa::Base));
    EXPECT_EQ(bool(back), bool(s.validate())) << s.str();
    if (!back) continue;
    ++legal;
    EXPECT_EQ(back->str(), s.str());
  }
  EXPECT_GT(legal, 1000);
}

TEST(Schedule, PartialLinesKeepTheRest) {
  Schedule base = defaultSchedule(Isa::Avx512);
  auto s = Schedule::parse("rows=4 tokens=6", base);
  ASSERT_TRUE(s);
  EXPECT_EQ(s->str(), "cpu isa=avx512 dot=f32 lanes=16 rows=4 tokens=6 fused=" + std::to_string(base.fused) +
                          " decoded=" + std::to_string(base.decoded) + " tile=0 chunk=5 band=32 segment=512");
  for (const char *text : {"", "  ", "cpu", " cpu \t\n"}) {
    auto same = Schedule::parse(text, base);
    ASSERT_TRUE(same) << text;
    EXPECT_EQ(same->str(), base.str());
  }
  auto repeated = Schedule::parse("band=64 band=96", base); // the last one counts
  ASSERT_TRUE(repeated);
  EXPECT_EQ(repeated->band, 96);
}

TEST(Schedule, EachRefusalNamesItsReason) {
  struct Bad {
    Isa isa;
    const char *text, *message;
  };
  const Bad cases[] = {
      {Isa::Avx2, "isa=avx3", "isa 'avx3' is not one of x86-64, avx2, avx512, avx512bf16, amx"},
      {Isa::Avx2, "isa", "isa '' is not one of"},
      {Isa::Avx2, "dot=fp8", "dot 'fp8' is not one of bf16, f32"},
      {Isa::Avx2, "wave=3", "unknown field 'wave'; the fields are those of \"cpu isa=avx2"},
      {Isa::Avx2, "rows=4 cpu", "unknown field 'cpu'"},
      {Isa::Avx2, "rows=four", "field 'rows' needs an integer, found 'four'"},
      {Isa::Avx2, "rows=4.0", "field 'rows' needs an integer, found '4.0'"},
      {Isa::Avx2, "rows=", "field 'rows' needs an integer, found ''"},
      {Isa::Avx2, "rows", "field 'rows' needs an integer, found ''"},
      {Isa::Avx2, "rows=99999999999999999999", "field 'rows' needs an integer"},
      {Isa::Avx2, "lanes=5", "lanes: must be 4, 8 or 16"},
      {Isa::Avx2, "lanes=16", "lanes: this isa has 8 lanes"},
      {Isa::Base, "lanes=8", "lanes: this isa has 4 lanes"},
      {Isa::Avx512, "lanes=8", "lanes: this isa has 16 lanes"},
      {Isa::Avx512, "dot=bf16", "dot: bf16 needs isa avx512bf16 or amx"},
      {Isa::Avx2, "rows=3", "rows: must be 2, 4, 8 or 16"},
      {Isa::Avx2, "rows=32", "rows: must be 2, 4, 8 or 16"},
      {Isa::Avx512, "tokens=0", "tokens: must be 1..8"},
      {Isa::Avx512, "rows=2 tokens=9", "tokens: must be 1..8"},
      {Isa::Avx2, "rows=4 tokens=4", "rows x tokens: accumulators would not fit the register file"},
      {Isa::Avx512, "rows=8 tokens=4", "rows x tokens: accumulators would not fit the register file"},
      {Isa::Avx2, "fused=-1", "fused: must be 0..4"},
      {Isa::Avx2, "fused=5", "fused: must be 0..4"},
      {Isa::Avx2, "decoded=3", "decoded: must be 4..4096 KB"},
      {Isa::Avx2, "decoded=4097", "decoded: must be 4..4096 KB"},
      {Isa::Amx, "tile=-1", "tile: must not be negative"},
      {Isa::Avx512Bf16, "tile=1", "tile: the tile kernel needs isa amx"},
      {Isa::Amx, "dot=f32", "isa: amx multiplies bf16; use dot=bf16"},
      {Isa::Amx, "chunk=0", "chunk: must be 1..64"},
      {Isa::Amx, "chunk=65", "chunk: must be 1..64"},
      {Isa::Avx2, "band=0", "band: must be a multiple of 32 up to 1024"},
      {Isa::Avx2, "band=48", "band: must be a multiple of 32 up to 1024"},
      {Isa::Avx2, "band=1056", "band: must be a multiple of 32 up to 1024"},
      {Isa::Avx2, "segment=8", "segment: must be a multiple of 16 in 16..4096"},
      {Isa::Avx2, "segment=0", "segment: must be a multiple of 16 in 16..4096"},
      {Isa::Avx2, "segment=4112", "segment: must be a multiple of 16 in 16..4096"},
      {Isa::Avx2, "segment=24", "segment: must be a multiple of 16 in 16..4096"},
  };
  for (const Bad &bad : cases) {
    auto s = Schedule::parse(bad.text, defaultSchedule(bad.isa));
    ASSERT_FALSE(s) << bad.text;
    EXPECT_EQ(s.error().kind, ErrorKind::User);
    EXPECT_EQ(s.error().place, "schedule");
    EXPECT_EQ(s.error().message.rfind(bad.message, 0), 0u) << bad.text << ": " << s.error().message;
  }
}

TEST(Features, HighestIsaThatHasAllItNeeds) {
  std::string all = std::string(avx512) + ",+avx512bf16,+amx-tile,+amx-bf16";
  EXPECT_EQ(isaOf(all), Isa::Amx);
  EXPECT_EQ(isaOf(std::string(avx512) + ",+avx512bf16"), Isa::Avx512Bf16);
  EXPECT_EQ(isaOf(avx512), Isa::Avx512);
  EXPECT_EQ(isaOf("+avx2,+fma,+f16c"), Isa::Avx2);
  EXPECT_EQ(isaOf(""), Isa::Base);
  EXPECT_EQ(isaOf(",,+,-,avx2"), Isa::Base);
  struct Without {
    const char *feature;
    Isa isa;
  };
  for (auto [feature, isa] : {Without{"avx2", Isa::Base},
                              {"fma", Isa::Base},
                              {"f16c", Isa::Base},
                              {"avx512f", Isa::Avx2},
                              {"avx512bw", Isa::Avx2},
                              {"avx512vl", Isa::Avx2},
                              {"avx512dq", Isa::Avx2},
                              {"avx512bf16", Isa::Avx512},
                              {"amx-tile", Isa::Avx512Bf16},
                              {"amx-bf16", Isa::Avx512Bf16}}) {
    EXPECT_EQ(isaOf(all + ",-" + feature), isa) << feature << ": the last mention wins";
    EXPECT_EQ(isaOf(std::string("-") + feature + "," + all), Isa::Amx) << feature;
  }
  EXPECT_EQ(isaOf("+avx2x,+fma,+f16c"), Isa::Base) << "names are compared whole";
  for (Isa isa : isas) EXPECT_FALSE(name(isa).empty());
}

std::string featuresWith(const char *changes) { return cpuFeatures(changes); }
bool has(const std::string &features, const std::string &item) {
  return ("," + features + ",").find("," + item + ",") != std::string::npos;
}

TEST(Features, GroupsTakeWhatIsBuiltOnThem) {
  const char *everything =
      "+avx,+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512bf16,+amx,+amx-int8,+vaes";
  std::string all = featuresWith(everything);
  EXPECT_EQ(isaOf(all), Isa::Amx);
  EXPECT_TRUE(has(all, "+amx-tile") && has(all, "+amx-bf16"));
  auto less = [&](const char *minus) {
    return featuresWith((std::string(everything) + "," + minus).c_str());
  };
  std::string noAmx = less("-amx");
  EXPECT_EQ(isaOf(noAmx), Isa::Avx512Bf16);
  EXPECT_TRUE(has(noAmx, "-amx-tile") && has(noAmx, "-amx-bf16") && has(noAmx, "-amx-int8"));
  EXPECT_TRUE(has(less("-amx-tile"), "-amx-bf16")) << "no tile arithmetic without tiles";
  EXPECT_TRUE(has(less("-amx-bf16"), "+amx-tile"));
  for (const char *group : {"-avx512", "-avx512f"}) {
    std::string found = less(group);
    EXPECT_EQ(isaOf(found), Isa::Avx2);
    for (const char *gone : {"-avx512f", "-avx512bw", "-avx512vl", "-avx512dq", "-avx512bf16"})
      EXPECT_TRUE(has(found, gone)) << group << " " << gone;
    EXPECT_TRUE(has(found, "+avx2"));
  }
  EXPECT_EQ(isaOf(less("-avx512bf16")), Isa::Avx512);
  for (const char *group : {"-avx2", "-avx"}) {
    std::string found = less(group);
    EXPECT_EQ(isaOf(found), Isa::Base);
    for (const char *gone : {"-avx2", "-avx512f", "-fma", "-f16c", "-amx-tile", "-vaes"})
      EXPECT_TRUE(has(found, gone)) << group << " " << gone;
  }
  EXPECT_EQ(isaOf(less("-avx2,+avx2,+fma,+f16c")), Isa::Avx2) << "items apply from left to right";
}

TEST(Features, TheTextIsInFixedOrderAndSafe) {
  std::string host = cpuFeatures("");
  EXPECT_EQ(host, featuresWith(""));
  EXPECT_EQ(host, featuresWith(",,+,-,avx2,nonsense"));
  EXPECT_TRUE(has(featuresWith("+quern-test"), "+quern-test"));
  std::string previous;
  size_t items = 0;
  for (size_t from = 0; from < host.size(); ++items) {
    size_t comma = std::min(host.find(',', from), host.size());
    std::string item = host.substr(from, comma - from);
    EXPECT_TRUE(item.size() > 1 && (item[0] == '+' || item[0] == '-')) << item;
    EXPECT_LT(previous, item.substr(1)) << "sorted, none twice";
    previous = item.substr(1), from = comma + 1;
  }
  EXPECT_GT(items, 20u);
}

} // namespace
} // namespace quern::cpu
