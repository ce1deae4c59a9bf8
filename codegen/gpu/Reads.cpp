// See Reads.h.
#include "codegen/gpu/Reads.h"
#include "llvm/ADT/SmallVector.h"
#include <fmt/format.h>

namespace quern::gpu {

static constexpr llvm::StringRef lines[] = {"none", "row", "token", "expert"};

std::string Read::str() const {
  std::string by = row == None ? "" : fmt::format(" by {}", lines[row].str());
  std::string column = hasColumn ? fmt::format(" column {} {}", mul, offset) : "";
  switch (kind) {
  case OfContraction: return "contraction" + column;
  case OfLowRank:
    return fmt::format("low_rank {} of {} {} rank {}{}{}", index, operand, name(dtype), rank, by, column);
  case OfTensor: return fmt::format("tensor {} {}{}{}", index, name(dtype), by, column);
  case OfWeight: return "weight";
  case OfScalar: return fmt::format("scalar {}", index);
  }
  return "";
}

Read parseRead(llvm::StringRef text) {
  llvm::SmallVector<llvm::StringRef> words;
  text.split(words, ' ', -1, /*KeepEmpty=*/false);
  Read r;
  auto number = [&](size_t at) {
    int64_t v = 0;
    if (at < words.size()) words[at].getAsInteger(10, v);
    return v;
  };
  llvm::StringRef kind = words.empty() ? "" : words[0];
  if (kind == "contraction") r.kind = Read::OfContraction;
  if (kind == "weight") r.kind = Read::OfWeight;
  if (kind == "scalar") r.kind = Read::OfScalar, r.index = int(number(1));
  if (kind == "tensor" || kind == "low_rank") {
    r.kind = kind == "tensor" ? Read::OfTensor : Read::OfLowRank;
    r.index = int(number(1));
    size_t dtype = kind == "tensor" ? 2 : 4;
    if (dtype < words.size()) r.dtype = parseDType(words[dtype]).value_or(DType::F32);
  }
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "of") r.operand = int(number(i + 1));
    if (words[i] == "rank") r.rank = number(i + 1);
    if (words[i] == "by")
      for (int line = 0; line < 4; ++line)
        if (words[i + 1] == lines[line]) r.row = Read::Line(line);
    if (words[i] == "column") r.hasColumn = true, r.mul = number(i + 1), r.offset = number(i + 2);
  }
  return r;
}

} // namespace quern::gpu
