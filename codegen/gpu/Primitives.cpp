// Names, types and attributes of the GPU primitives: what Primitives.h declares as data, applied to LLVM
// functions.
#include "codegen/gpu/Primitives.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/IR/DerivedTypes.h"
#include "llvm/IR/Function.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/raw_ostream.h"
#include <charconv>
#include <fmt/format.h>
#include <optional>

namespace quern::gpu {
namespace {

/// Consumes `prefix` from the front of `text`.
bool skip(std::string_view &text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Consumes a plain decimal number (no sign, no leading zero).
std::optional<int64_t> number(std::string_view &text) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  size_t digits = end - text.data();
  if (code != std::errc() || text[0] == '-' || (text[0] == '0' && digits > 1)) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

constexpr int64_t maxAccumulators = 128; // m64n256: 128 floats of a thread
constexpr int64_t maxPending = 15;       // groups; far above any pipeline here

std::optional<PrimitiveUse> readParametric(std::string_view name) {
  PrimitiveUse use;
  if (skip(name, "wgmma.fence.n")) {
    use.kind = PrimitiveUse::WgmmaFence, use.effect = Effect::Mma;
    auto floats = number(name);
    auto ints = floats && skip(name, ".a") ? number(name) : std::nullopt;
    if (!ints || !name.empty() || *floats + *ints < 2 || *floats > maxAccumulators || *ints > 64)
      return std::nullopt;
    use.floats = *floats, use.ints = *ints;
  } else if (skip(name, "wgmma.wait.")) {
    use.kind = PrimitiveUse::WgmmaWait, use.effect = Effect::Mma;
    auto pending = number(name);
    auto floats = pending && skip(name, ".n") ? number(name) : std::nullopt;
    if (!floats || !name.empty() || *floats < 2 || *floats > maxAccumulators || *pending > maxPending)
      return std::nullopt;
    use.number = *pending, use.floats = *floats;
  } else if (skip(name, "wgmma.")) {
    use.kind = PrimitiveUse::Wgmma, use.effect = Effect::Mma;
    use.variant = skip(name, "bf16.n") ? "bf16" : skip(name, "f16.n") ? "f16" : "";
    auto n = use.variant.empty() ? std::nullopt : number(name);
    if (!n || !name.empty() || *n < 8 || *n > 256 || *n % 8) return std::nullopt;
    use.number = *n, use.floats = *n / 2, use.ints = 4;
  } else if (skip(name, "setmaxnreg.")) {
    use.kind = PrimitiveUse::SetMaxRegs;
    use.variant = skip(name, "inc.") ? "inc" : skip(name, "dec.") ? "dec" : "";
    auto regs = use.variant.empty() ? std::nullopt : number(name);
    if (!regs || !name.empty() || *regs < 24 || *regs > 256 || *regs % 8) return std::nullopt;
    use.number = *regs;
  } else if (skip(name, "cp.async.wait.")) {
    use.kind = PrimitiveUse::CpAsyncWait;
    auto pending = number(name);
    if (!pending || !name.empty() || *pending > maxPending) return std::nullopt;
    use.number = *pending;
  } else {
    return std::nullopt;
  }
  return use;
}

llvm::Type *typeOf(char letter, llvm::LLVMContext &context) {
  switch (letter) {
  case 'v': return llvm::Type::getVoidTy(context);
  case 'i': return llvm::Type::getInt32Ty(context);
  case 'h': return llvm::Type::getInt16Ty(context);
  case 'l': return llvm::Type::getInt64Ty(context);
  case 'f': return llvm::Type::getFloatTy(context);
  case 's': return llvm::PointerType::get(context, 3);
  case 'g': return llvm::PointerType::get(context, 1);
  default: return llvm::PointerType::get(context, 0); // 'p'
  }
}

std::string text(const llvm::Type *type) {
  std::string out;
  llvm::raw_string_ostream(out) << *type;
  return out;
}

} // namespace

const Primitive *findPrimitive(std::string_view name) {
  auto row = llvm::find_if(primitives, [&](const Primitive &p) { return p.name == name; });
  return row == std::end(primitives) ? nullptr : row;
}

Expected<PrimitiveUse> readPrimitive(std::string_view functionName) {
  std::string_view name = functionName;
  if (skip(name, "q.")) {
    if (const Primitive *row = findPrimitive(name)) {
      PrimitiveUse use;
      use.effect = row->effect, use.row = row;
      return use;
    }
    if (auto use = readParametric(name)) return *use;
  }
  return Error::internal(fmt::format("'{}' is not a GPU primitive", functionName),
                         "codegen/gpu/Primitives.h");
}

llvm::FunctionType *primitiveType(const PrimitiveUse &use, llvm::LLVMContext &context) {
  llvm::SmallVector<llvm::Type *> in, out;
  auto add = [&](llvm::SmallVector<llvm::Type *> &types, char letter, int64_t count) {
    types.append(count, typeOf(letter, context));
  };
  if (use.kind == PrimitiveUse::Row) {
    std::string_view signature = use.row->signature; // "r(abc)"
    for (char letter : signature.substr(2, signature.size() - 3)) add(in, letter, 1);
    return llvm::FunctionType::get(typeOf(signature[0], context), in, false);
  }
  add(in, 'f', use.floats), add(in, 'i', use.ints), add(out, 'f', use.floats);
  if (use.kind == PrimitiveUse::Wgmma)
    add(in, 'l', 1);
  else
    add(out, 'i', use.ints);
  llvm::Type *result = out.empty() ? typeOf('v', context) : llvm::StructType::get(context, out);
  return llvm::FunctionType::get(result, in, false);
}

Status setPrimitiveAttributes(llvm::Function &function) {
  using llvm::Attribute, llvm::MemoryEffects, llvm::ModRefInfo;
  auto use = readPrimitive(std::string_view(function.getName()));
  if (!use) return use.takeError();
  llvm::FunctionType *type = primitiveType(*use, function.getContext());
  if (function.getFunctionType() != type || !function.isDeclaration())
    return Error::internal(fmt::format("expected a declaration of type {}, found {} {}", text(type),
                                       function.isDeclaration() ? "a declaration of" : "a definition of",
                                       text(function.getFunctionType())),
                           function.getName().str());
  function.setAttributes({});
  function.addFnAttr(Attribute::NoUnwind);
  switch (use->effect) {
  case Effect::Sync:
    // Memory effects and termination stay unknown: no load, store or other primitive may cross, and a wait
    // may well not return. Nor is it said that no function of the module runs meanwhile (nocallback): other
    // threads do run, and they write shared variables. Not to be duplicated or put under another branch.
    function.addFnAttr(Attribute::Convergent);
    break;
  case Effect::Mma:
    // Its order among primitives comes from the memory that nothing else can name; loads of the next codes
    // may pass. Registers in flight are protected by the values tied through fence and wait.
    function.addFnAttr(Attribute::Convergent);
    function.addFnAttr(Attribute::WillReturn);
    function.setMemoryEffects(MemoryEffects::inaccessibleMemOnly());
    break;
  case Effect::Read:
    for (Attribute::AttrKind kind :
         {Attribute::WillReturn, Attribute::NoSync, Attribute::NoFree, Attribute::NoCallback})
      function.addFnAttr(kind);
    function.setMemoryEffects(MemoryEffects::argMemOnly(ModRefInfo::Ref));
    break;
  case Effect::Pure:
    for (Attribute::AttrKind kind : {Attribute::WillReturn, Attribute::NoSync, Attribute::NoFree,
                                     Attribute::NoCallback, Attribute::Speculatable})
      function.addFnAttr(kind);
    function.setMemoryEffects(MemoryEffects::none());
    break;
  }
  return {};
}

Status setPrimitiveAttributes(llvm::Module &module) {
  for (llvm::Function &function : module)
    if (isPrimitiveName(std::string_view(function.getName())))
      if (Status ok = setPrimitiveAttributes(function); !ok) return ok;
  return {};
}

} // namespace quern::gpu
