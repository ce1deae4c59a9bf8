// See ReadFacts.h.
#include "codegen/gpu/ReadFacts.h"
#include <fmt/format.h>

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;
using syntax::RowAccess;

struct Reader {
  const cpu::Problem &p;
  const Schedule &schedule;
  TileKernel out;
  int main = -1;                // the packed contraction
  std::vector<int> lowRankOf;   // contraction -> workspace index, of the ones that fill a workspace
  std::vector<int> workspaceOf; // contraction -> workspace index, of the ones that multiply it by B

  static Error no(std::string reason) { return Error::user(std::move(reason), "GPU target"); }

  Status contractions() {
    Facts &f = out.facts;
    lowRankOf.assign(p.contractions.size(), -1), workspaceOf = lowRankOf;
    for (size_t i = 0; i < p.contractions.size(); ++i) {
      const cpu::Contraction &c = p.contractions[i];
      const cpu::Operand &rhs = p.operands[c.rhs];
      if (rhs.kind == syntax::Param::Packed) {
        if (main >= 0)
          return no("the kernel multiplies by two packed operands, one is supported; stack them along N");
        if (c.lhs < 0) return no("a packed operand multiplies another contraction, activations are expected");
        main = int(i);
      } else if (c.lhs >= 0) {
        if (c.columns > 256)
          return no(fmt::format(
              "a contraction with an unpacked operand has {} columns; as a low-rank factor it may "
              "have at most 256",
              c.columns));
        lowRankOf[i] = int(out.lowRank.size());
        out.lowRank.push_back({c.lhs, c.rhs, c.lhsRow == RowAccess::Token, c.byExpert, c.columns, c.reduced});
      } else {
        workspaceOf[i] = lowRankOf[c.lhsContraction];
        if (workspaceOf[i] < 0) return no("a contraction of a contraction must start from a low-rank factor");
      }
    }
    if (main < 0) return no("the kernel has no packed operand");
    const cpu::Contraction &c = p.contractions[main];
    const cpu::Operand &w = p.operands[c.rhs];
    f.n = c.columns, f.k = c.reduced, f.packed = c.rhs, f.lhs = c.lhs;
    f.routed = p.routing >= 0, f.byExpert = c.byExpert, f.byToken = c.lhsRow == RowAccess::Token;
    f.act = p.act, f.state = w.dtype, f.block = w.block;
    f.scale = w.codec.scale, f.zero = w.codec.hasZero, f.highFirst = w.codec.highFirst;
    for (int i = 0; i < 16; ++i) f.table[i] = w.codec.table[i];
    if (w.layout != Layout::Gpu)
      return no(fmt::format("packed operands must be in the gpu layout, found {}", name(w.layout)));
    if (f.act == DType::F32) f.act = DType::BF16; // the launcher rounds fp32 activations
    if (f.zero && schedule.decode == Decode::Fast)
      return no("decode=fast has no zero points; use decode=exact, pairs or ahead");
    if (f.k % 32) return no(fmt::format("K = {} is no multiple of 32", f.k));
    if (f.n % 8) return no(fmt::format("N = {} is no multiple of 8", f.n));
    return {};
  }

  Status pairing() {
    bool interleaved = true, halved = true, none = true;
    for (const cpu::Write &w : p.writes)
      for (const cpu::Read &r : w.reads) {
        if (r.kind != cpu::Read::OfContraction || r.index != main) continue;
        none &= r.mul == 1 && r.offset == 0 && w.columns == out.facts.n;
        interleaved &= r.mul == 2 && r.offset <= 1 && w.columns * 2 == out.facts.n;
        halved &=
            r.mul == 1 && (r.offset == 0 || r.offset * 2 == out.facts.n) && w.columns * 2 == out.facts.n;
      }
    out.facts.pairing = none ? Pairing::None : interleaved ? Pairing::Interleaved : Pairing::Halved;
    if (!none && !interleaved && !halved)
      return no("an output column may take contraction column n, the pair 2j and 2j + 1, or the pair j and j "
                "+ N/2");
    if (out.facts.pairing == Pairing::Halved && schedule.bm != 128)
      return no(fmt::format("a halved pair needs bm=128, the schedule has bm={}", schedule.bm));
    return {};
  }

  Expected<Read> read(const cpu::Read &r) {
    Read out;
    out.row = r.row == RowAccess::Row      ? Read::Row
              : r.row == RowAccess::Token  ? Read::Token
              : r.row == RowAccess::Expert ? Read::Expert
                                           : Read::None;
    out.hasColumn = r.hasColumn, out.mul = r.mul, out.offset = r.offset;
    if (r.kind == cpu::Read::OfRowWeight) {
      out.kind = Read::OfWeight;
    } else if (r.kind == cpu::Read::OfTensor) {
      out.kind = Read::OfTensor, out.index = r.index, out.dtype = p.operands[r.index].dtype;
    } else if (r.index == main) {
      out.kind = Read::OfContraction, out.row = Read::None;
    } else if (workspaceOf[r.index] >= 0) {
      const cpu::Contraction &c = p.contractions[r.index];
      out.kind = Read::OfLowRank, out.index = workspaceOf[r.index], out.operand = c.rhs;
      out.dtype = p.operands[c.rhs].dtype, out.rank = c.reduced;
      out.row = c.byExpert ? Read::Expert : Read::None;
    } else {
      return no("a low-rank factor is read directly; only its product with a second factor is supported");
    }
    return out;
  }

  Status writes() {
    for (const cpu::Write &w : p.writes) {
      TileWrite t;
      t.operand = w.output, t.combine = w.combine, t.columns = w.columns, t.body = w.body;
      t.dtype = p.operands[w.output].dtype;
      for (const cpu::Read &r : w.reads) {
        auto one = read(r);
        if (!one) return one.takeError();
        t.reads.push_back(*one);
      }
      if (w.combine) {
        t.index = int(out.combine.size());
        out.combine.push_back({w.output, w.columns});
      }
      if (w.columns % 4) return no(fmt::format("{} output columns are no multiple of 4", w.columns));
      out.writes.push_back(std::move(t));
    }
    return {};
  }

  void params() {
    auto add = [&](Kind kind, int operand = -1, int index = 0) {
      out.params.push_back({kind, operand, index});
    };
    const Facts &f = out.facts;
    if (schedule.gather == Gather::Sorted)
      add(Kind::TensorMap, f.lhs);
    else
      add(Kind::Pointer, f.lhs), add(Kind::Stride, f.lhs, 0);
    if (schedule.decode == Decode::Ahead) {
      add(Kind::Decoded);
      out.decode.push_back(
          {f.packed, f.byExpert, f.pairing == Pairing::Halved, f.n, f.k, schedule.bm, f.act});
    } else {
      add(Kind::Codes, f.packed), add(Kind::Scales, f.packed);
      if (f.zero) add(Kind::Zeros, f.packed);
    }
    add(Kind::Offsets), add(Kind::Experts), add(Kind::Rows);
    if (f.routed) add(Kind::RowToken), add(Kind::RowWeight);
    for (size_t i = 0; i < p.operands.size(); ++i) {
      const cpu::Operand &o = p.operands[i];
      if (o.kind == syntax::Param::Scalar) add(Kind::Scalar, int(i));
      if (o.kind != syntax::Param::Tensor || (int(i) == f.lhs && schedule.gather == Gather::Fused)) continue;
      bool workspace = false;
      for (auto &c : out.combine) workspace |= c.output == int(i);
      if (workspace || int(i) == f.lhs) continue;
      add(Kind::Pointer, int(i));
      for (int d = 0; d < o.rank; ++d) add(Kind::Stride, int(i), d);
    }
    for (size_t i = 0; i < out.combine.size(); ++i) add(Kind::Partial, -1, int(i));
    for (size_t i = 0; i < out.lowRank.size(); ++i) add(Kind::LowRank, -1, int(i));
  }
};

} // namespace

Expected<TileKernel> readTileKernel(const cpu::Problem &problem, const Schedule &schedule) {
  Reader r{problem, schedule, {}, -1, {}, {}};
  if (Status ok = r.contractions(); !ok) return ok.takeError();
  if (Status ok = r.pairing(); !ok) return ok.takeError();
  if (Status ok = r.writes(); !ok) return ok.takeError();
  if (int64_t steps = r.out.facts.steps(); schedule.split > steps)
    return ::quern::Error::user(
        fmt::format("split: {} CTAs cannot share the {} step{} of 64 columns that K = {} has (in "
                    "\"{}\")",
                    schedule.split, steps, steps == 1 ? "" : "s", r.out.facts.k, schedule.str()),
        "schedule");
  r.params();
  return std::move(r.out);
}

} // namespace quern::gpu
