// SASS text to instructions, and the pipe of each instruction.
#include "codegen/nvidia/Sass.h"
#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

namespace quern::nvidia {
namespace {

std::string_view trim(std::string_view text) {
  size_t from = text.find_first_not_of(" \t"), to = text.find_last_not_of(" \t\r");
  return from == std::string_view::npos ? "" : text.substr(from, to - from + 1);
}

std::optional<int64_t> hex(std::string_view text) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return code == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

/// "/*0140*/  @!P0 HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR4], R24, gsb0 ;  /* 0x... */"
std::optional<Instruction> readInstruction(std::string_view line) {
  if (!line.starts_with("/*")) return std::nullopt;
  size_t close = line.find("*/");
  if (close == std::string_view::npos) return std::nullopt;
  auto address = hex(line.substr(2, close - 2));
  size_t end = line.find(';');
  if (!address || end == std::string_view::npos || end < close) return std::nullopt;
  std::string_view text = trim(line.substr(close + 2, end - close - 2));
  bool predicated = text.starts_with("@");
  if (predicated) text = trim(text.substr(std::min(text.find(' '), text.size())));
  size_t space = std::min(text.find(' '), text.size());
  return Instruction{*address, std::string(text.substr(0, space)), std::string(trim(text.substr(space))),
                     predicated};
}

struct Family {
  Pipe pipe;
  std::vector<std::string_view> mnemonics;
};
const Family families[] = {
    {Pipe::Tensor, {"HGMMA", "HMMA", "IGMMA", "QGMMA"}},
    {Pipe::Alu, {"PRMT",  "LOP3", "LOP",  "SHF",   "IADD3",  "IADD",  "VIADD", "LEA",
                 "ISETP", "SEL",  "FSEL", "IMNMX", "VIMNMX", "FMNMX", "FSETP", "PLOP3",
                 "F2FP",  "IABS", "MOV",  "P2R",   "R2P",    "BMSK",  "SGXT",  "VABSDIFF"}},
    {Pipe::Fma, {"FMUL", "FADD", "FFMA", "HMUL2", "HADD2", "HFMA2", "IMAD"}},
    {Pipe::Shuffle, {"SHFL"}},
    {Pipe::Memory,
     {"LDS", "STS",   "LDSM",  "STSM", "LDG",    "STG",    "LD",      "ST",      "LDC",    "LDL",
      "STL", "ATOMS", "ATOMG", "RED",  "LDGSTS", "UBLKCP", "UTMALDG", "UTMASTG", "UTMAPF", "UTMACCTL"}},
    {Pipe::Sync,
     {"SYNCS", "BAR", "WARPSYNC", "WARPGROUP", "DEPBAR", "LDGDEPBAR", "MEMBAR", "FENCE", "ERRBAR",
      "UCGABAR_ARV", "UCGABAR_WAIT", "USETMAXREG", "ARRIVES", "NANOSLEEP", "BSYNC", "BSSY"}},
    {Pipe::Control, {"BRA", "BRX", "EXIT", "RET", "CALL", "NOP", "YIELD", "BREAK", "WARPSYNC"}},
};

} // namespace

std::vector<SassFunction> readSass(std::string_view sass) {
  std::vector<SassFunction> functions;
  std::vector<std::string> pending; // labels wait for the next instruction's address
  std::istringstream lines{std::string(sass)};
  for (std::string raw; std::getline(lines, raw);) {
    std::string_view line = trim(raw);
    if (line.starts_with("Function : ")) // cuobjdump
      functions.push_back({std::string(line.substr(11)), {}, {}});
    else if (line.starts_with(".text.") && line.ends_with(":")) // nvdisasm
      functions.push_back({std::string(line.substr(6, line.size() - 7)), {}, {}});
    else if (line.starts_with(".L") && line.ends_with(":"))
      pending.emplace_back(line.substr(0, line.size() - 1));
    else if (auto instruction = readInstruction(line); instruction && !functions.empty()) {
      for (const std::string &label : pending) functions.back().labels[label] = instruction->address;
      pending.clear();
      functions.back().code.push_back(std::move(*instruction));
    }
  }
  return functions;
}

std::string_view name(Pipe pipe) {
  constexpr std::string_view names[] = {"tensor",  "alu",  "fma",     "shuffle", "memory",
                                        "uniform", "sync", "control", "other"};
  return names[int(pipe)];
}

Pipe pipeOf(std::string_view mnemonic) {
  std::string_view base = mnemonic.substr(0, mnemonic.find('.'));
  for (const Family &family : families)
    if (std::ranges::find(family.mnemonics, base) != family.mnemonics.end()) return family.pipe;
  // Everything on the uniform path begins with a U; R2UR and S2UR feed it.
  return base.starts_with("U") || base == "R2UR" || base == "S2UR" ? Pipe::Uniform : Pipe::Other;
}

} // namespace quern::nvidia
