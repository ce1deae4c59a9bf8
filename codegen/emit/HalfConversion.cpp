// See HalfConversion.h.
#include "codegen/emit/HalfConversion.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/Support/SourceMgr.h"

using namespace llvm;

namespace quern::x86 {

// Round to nearest even. Below 2^-14 the 24-bit significand is shifted to units of 2^-24 and rounded there; a
// carry out of either field is the right one in the format's order.
static constexpr char text[] = R"(
define hidden half @__truncsfhf2(float %value) nounwind {
  %bits = bitcast float %value to i32
  %top = lshr i32 %bits, 16
  %sign = and i32 %top, 32768
  %abs = and i32 %bits, 2147483647
  %isNan = icmp ugt i32 %abs, 2139095040
  %nanBits = lshr i32 %abs, 13
  %nanPayload = and i32 %nanBits, 511
  %nan = or i32 %nanPayload, 32256
  %isLarge = icmp uge i32 %abs, 1199570944 ; 2^16
  %rebased = sub i32 %abs, 939524096
  %half = lshr i32 %rebased, 13
  %odd = and i32 %half, 1
  %bias = add i32 %odd, 4095
  %biased = add i32 %rebased, %bias
  %normal = lshr i32 %biased, 13
  %isSubnormal = icmp ult i32 %abs, 947912704 ; 2^-14
  %field = and i32 %bits, 8388607
  %significand = or i32 %field, 8388608
  %exponent = lshr i32 %abs, 23
  %distance = sub i32 126, %exponent
  %far = icmp ugt i32 %distance, 25
  %shift = select i1 %far, i32 25, i32 %distance
  %units = lshr i32 %significand, %shift
  %last = and i32 %units, 1
  %less = sub i32 %shift, 1
  %halfway = shl i32 1, %less
  %below = sub i32 %halfway, 1
  %tie = add i32 %below, %last
  %rounded = add i32 %significand, %tie
  %subnormal = lshr i32 %rounded, %shift
  %a = select i1 %isSubnormal, i32 %subnormal, i32 %normal
  %b = select i1 %isLarge, i32 31744, i32 %a
  %c = select i1 %isNan, i32 %nan, i32 %b
  %signed = or i32 %c, %sign
  %short = trunc i32 %signed to i16
  %result = bitcast i16 %short to half
  ret half %result
}
define hidden float @__extendhfsf2(half %value) nounwind {
  %bits = bitcast half %value to i16
  %wide = zext i16 %bits to i32
  %signBit = and i32 %wide, 32768
  %sign = shl i32 %signBit, 16
  %abs = and i32 %wide, 32767
  %moved = shl i32 %abs, 13
  %normal = add i32 %moved, 939524096
  %special = add i32 %moved, 1879048192
  %isSpecial = icmp uge i32 %abs, 31744
  %isNan = icmp ugt i32 %abs, 31744
  %quietBit = select i1 %isNan, i32 4194304, i32 0
  %quiet = or i32 %special, %quietBit
  %isSubnormal = icmp ult i32 %abs, 1024
  %units = uitofp i32 %abs to float
  %scaled = fmul float %units, 0x3E70000000000000 ; 2^-24, exact
  %subnormal = bitcast float %scaled to i32
  %a = select i1 %isSpecial, i32 %quiet, i32 %normal
  %b = select i1 %isSubnormal, i32 %subnormal, i32 %a
  %signed = or i32 %b, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}
)";

Status addHalfConversions(Module &module) {
  SMDiagnostic diagnostic;
  if (parseAssemblyInto(MemoryBufferRef(text, "half conversions"), &module, nullptr, diagnostic))
    return quern::Error::internal(diagnostic.getMessage().str(), "half conversions");
  return {};
}

} // namespace quern::x86
