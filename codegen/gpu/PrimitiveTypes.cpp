// See PrimitiveTypes.h.
#include "codegen/gpu/PrimitiveTypes.h"
#include "codegen/gpu/Primitives.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/BuiltinTypes.h"
#include <fmt/format.h>

using namespace mlir;

namespace quern::gpu {

/// The signature letter of a type, '?' when it has none.
static char letterOf(Type type) {
  if (type.isInteger(32)) return 'i';
  if (type.isInteger(16)) return 'h';
  if (type.isInteger(64)) return 'l';
  if (type.isF32()) return 'f';
  if (auto pointer = dyn_cast<LLVM::LLVMPointerType>(type))
    return pointer.getAddressSpace() == 3 ? 's' : pointer.getAddressSpace() == 1 ? 'g' : 'p';
  return '?';
}

static std::string lettersOf(TypeRange types) {
  std::string letters;
  for (Type type : types) letters += letterOf(type);
  return letters;
}

std::string checkPrimitive(StringRef primitive, TypeRange inputs, TypeRange outputs) {
  auto use = readPrimitive("q." + primitive.str());
  if (!use) return fmt::format("names no GPU primitive: '{}'", primitive.str());
  std::string found = lettersOf(outputs) + "(" + lettersOf(inputs) + ")", expected;
  if (outputs.empty()) found = "v" + found;
  if (use->row) {
    expected = use->row->signature;
  } else {
    std::string floats(use->floats, 'f'), ints(use->ints, 'i');
    switch (use->kind) {
    case PrimitiveUse::Wgmma: expected = floats + "(" + floats + ints + "l)"; break;
    case PrimitiveUse::WgmmaFence: expected = floats + ints + "(" + floats + ints + ")"; break;
    case PrimitiveUse::WgmmaWait: expected = floats + "(" + floats + ")"; break;
    default: expected = "v()";
    }
  }
  if (found == expected) return "";
  return fmt::format("'{}' has the signature {}, expected {}", primitive.str(), found, expected);
}

} // namespace quern::gpu
