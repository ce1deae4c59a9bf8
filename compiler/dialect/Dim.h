// Dimensions as the dialect writes them: text such as "N", "N/2", "2*N", "3*N/2", "64" (syntax::Dim::str()).
#pragma once
#include "compiler/syntax/Ast.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include <optional>

namespace mlir::quern {

using ::quern::syntax::Dim;

/// The dimension that `text` writes, in lowest terms; nullopt when it is not one.
std::optional<Dim> parseDim(llvm::StringRef text);

/// True when both texts write the same dimension ("2*N/2" and "N").
bool sameDim(llvm::StringRef a, llvm::StringRef b);

/// Value of the dimension that `text` writes; `symbol` gives a symbol's value. Nullopt: bad text, unknown
/// symbol, division with a remainder, or overflow of 64 bits.
std::optional<int64_t> evaluateDim(llvm::StringRef text,
                                   llvm::function_ref<std::optional<int64_t>(llvm::StringRef)> symbol);

/// True when mul * j + offset certainly leaves [0, extent) for some j in [0, columns), whatever the symbols
/// (each at least 1) are. False when it fits or cannot be decided.
bool certainlyOutOfRange(int64_t mul, const Dim &offset, const Dim &columns, const Dim &extent);

} // namespace mlir::quern
