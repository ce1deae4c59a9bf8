// Registration of the `quern` dialect, and the custom pieces of its textual form.
#include "compiler/dialect/Quern.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/Transforms/FoldUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::quern;

#include "compiler/dialect/QuernDialect.cpp.inc"
#include "compiler/dialect/QuernEnums.cpp.inc"
#include "compiler/dialect/QuernInterfaces.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "compiler/dialect/QuernAttrs.cpp.inc"

namespace {
/// Keeps folded constants inside the region of a write: a kernel's own block holds `quern` ops only.
struct KeepConstantsInside : DialectFoldInterface {
  using DialectFoldInterface::DialectFoldInterface;
  bool shouldMaterializeInto(Region *region) const final {
    return isa<WriteOpInterface>(region->getParentOp());
  }
};
} // namespace

void QuernDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "compiler/dialect/QuernAttrs.cpp.inc"
      >();
  registerTypes();
  addOperations<
#define GET_OP_LIST
#include "compiler/dialect/QuernOps.cpp.inc"
      >();
  addInterfaces<KeepConstantsInside>();
}

/// Arguments print under the names that the source gave them.
void KernelOp::getAsmBlockArgumentNames(Region &region, OpAsmSetValueNameFn setName) {
  unsigned params = getNumParams();
  if (region.empty() || region.getNumArguments() != params + getNumOutputs())
    return; // printed for a diagnostic
  for (BlockArgument argument : region.getArguments()) {
    unsigned i = argument.getArgNumber();
    setName(argument, i < params ? getParamName(i) : getOutputName(i - params));
  }
}

// Row accesses print as bare words: `%x by token`, `rows [row, expert]`.
static ParseResult parseRowAccess(OpAsmParser &parser, RowAccessAttr &attr) {
  StringRef word;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseKeyword(&word)) return failure();
  std::optional<RowAccess> access = symbolizeRowAccess(word);
  if (!access)
    return parser.emitError(loc, "unknown row access '")
           << word << "'; expected none, row, token, expert or weight";
  attr = RowAccessAttr::get(parser.getContext(), *access);
  return success();
}

static void printRowAccess(OpAsmPrinter &printer, Operation *, RowAccessAttr attr) {
  printer << stringifyRowAccess(attr.getValue());
}

static ParseResult parseRowAccessList(OpAsmParser &parser, ArrayAttr &attr) {
  SmallVector<Attribute> list;
  auto element = [&]() -> ParseResult {
    RowAccessAttr access;
    if (parseRowAccess(parser, access)) return failure();
    list.push_back(access);
    return success();
  };
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::Square, element)) return failure();
  attr = parser.getBuilder().getArrayAttr(list);
  return success();
}

static void printRowAccessList(OpAsmPrinter &printer, Operation *op, ArrayAttr attr) {
  printer << '[';
  llvm::interleaveComma(attr, printer,
                        [&](Attribute a) { printRowAccess(printer, op, cast<RowAccessAttr>(a)); });
  printer << ']';
}

// A type with its mnemonic, where the default form would print the parameters alone.
static ParseResult parseFullType(OpAsmParser &parser, Type &type) { return parser.parseType(type); }
static void printFullType(OpAsmPrinter &printer, Operation *, Type type) { printer.printType(type); }

// Types of the reads, in parentheses, none allowed.
static ParseResult parseTypeList(OpAsmParser &parser, SmallVectorImpl<Type> &types) {
  return parser.parseCommaSeparatedList(AsmParser::Delimiter::Paren,
                                        [&] { return parser.parseType(types.emplace_back()); });
}

static void printTypeList(OpAsmPrinter &printer, Operation *, TypeRange types) {
  printer << '(';
  llvm::interleaveComma(types, printer);
  printer << ')';
}

#define GET_OP_CLASSES
#include "compiler/dialect/QuernOps.cpp.inc"
