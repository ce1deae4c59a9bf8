// Dimensions as the dialect writes them: text such as "N", "N/2", "2*N", "3*N/2", "64" (syntax::Dim::str()).
#pragma once
#include "compiler/syntax/Ast.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include <optional>

namespace mlir::quern {

using ::quern::syntax::Dim;

/// Largest constant dimension, and largest factor and divisor of a symbol (LANGUAGE.md, dim.form).
constexpr int64_t maxDimension = int64_t(1) << 31, maxFactor = int64_t(1) << 20;

/// The dimension that `text` writes, in lowest terms; nullopt when it is not one.
std::optional<Dim> parseDim(llvm::StringRef text);

/// Magnitudes are within the limits above.
bool isWithinLimits(const Dim &dim);

/// True when both texts write the same dimension ("2*N/2" and "N").
bool sameDim(llvm::StringRef a, llvm::StringRef b);

/// Value of the dimension that `text` writes; `symbol` gives a symbol's value. Nullopt: bad text, unknown
/// symbol, division with a remainder, or overflow of 64 bits.
std::optional<int64_t> evaluateDim(llvm::StringRef text,
                                   llvm::function_ref<std::optional<int64_t>(llvm::StringRef)> symbol);

/// True when mul * j + offset certainly leaves [0, extent) for some j in [0, columns), whatever the symbols
/// are (positive, and divisible by what divides them here). False when it fits or cannot be decided; exact
/// when all dimensions are constants within the limits above.
bool certainlyOutOfRange(int64_t mul, const Dim &offset, const Dim &columns, const Dim &extent);

} // namespace mlir::quern
