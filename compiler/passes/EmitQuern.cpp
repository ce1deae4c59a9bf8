// Normal form -> `quern` dialect. One contraction is one quern.grouped_matmul, one write one quern.store or
// quern.combine, one node one op of a write's region (sigmoid: 1 / (1 + exp(-x))).
#include "compiler/passes/EmitQuern.h"
#include "mlir/IR/Builders.h"
#include <set>

using mlir::StringRef;
using mlir::Value;
namespace arith = mlir::arith;
namespace math = mlir::math;
namespace mq = mlir::quern;

namespace quern {
namespace {

using syntax::Op;

StringRef elementText(const syntax::ElemType &element) {
  switch (element.kind) {
  case syntax::ElemType::Act: return "act";
  case syntax::ElemType::Float: return "float";
  case syntax::ElemType::Literal: break;
  }
  std::string_view text = name(element.literal);
  return {text.data(), text.size()};
}

mq::RowAccess rowAccess(syntax::RowAccess access) {
  switch (access) {
  case syntax::RowAccess::None: return mq::RowAccess::None;
  case syntax::RowAccess::Row: return mq::RowAccess::Row;
  case syntax::RowAccess::Token: return mq::RowAccess::Token;
  case syntax::RowAccess::Expert: return mq::RowAccess::Expert;
  }
  llvm_unreachable("all row accesses are listed");
}

class Emitter {
  mlir::OpBuilder b;
  const syntax::Program &program;
  const syntax::NormalKernel &normal;
  const syntax::Kernel &source;
  mq::KernelOp kernel;
  mlir::SmallVector<Value> contractions;

  mlir::Location at(syntax::Loc loc) {
    return mlir::FileLineColLoc::get(b.getContext(), program.fileName, loc.line, loc.column);
  }

  mlir::ArrayAttr dimsAttr(const std::vector<syntax::Dim> &dims) {
    mlir::SmallVector<mlir::Attribute> list;
    for (const syntax::Dim &dim : dims) list.push_back(b.getStringAttr(dim.str()));
    return b.getArrayAttr(list);
  }

  mlir::Type typeOf(const syntax::Param &param) {
    switch (param.kind) {
    case syntax::Param::Tensor:
      return mq::MemTensorType::get(b.getContext(), dimsAttr(param.dims),
                                    b.getStringAttr(elementText(param.elem)));
    case syntax::Param::Packed:
      return mq::PackedType::get(b.getContext(), mlir::FlatSymbolRefAttr::get(b.getContext(), param.codec),
                                 dimsAttr(param.dims));
    case syntax::Param::Routing: return mq::RoutingType::get(b.getContext(), dimsAttr(param.dims));
    case syntax::Param::Scalar: return b.getF32Type();
    }
    llvm_unreachable("all parameter kinds are listed");
  }

  void emitCodecs() {
    std::set<std::string> done;
    for (const syntax::Param &param : source.params) {
      if (param.kind != syntax::Param::Packed || !done.insert(param.codec).second) continue;
      const syntax::Codec &codec = *program.findCodec(param.codec); // the checks found it
      const char *scale = codec.scale == syntax::ScaleType::F32    ? "f32"
                          : codec.scale == syntax::ScaleType::BF16 ? "bf16"
                                                                   : "e8m0";
      mq::CodecOp::create(b, at(codec.loc), codec.name, codec.table, codec.highFirst ? "high" : "low", scale,
                          uint64_t(codec.block), codec.hasZero);
    }
  }

  void emitContraction(const syntax::Contraction &c) {
    Value lhs = c.lhsParam >= 0 ? Value(kernel.getParam(c.lhsParam)) : contractions[c.lhsContraction];
    std::string columns = c.columns.str();
    auto type = mq::RowsType::get(b.getContext(), b.getStringAttr(columns));
    contractions.push_back(mq::GroupedMatmulOp::create(
        b, at(c.loc), type, lhs, kernel.getParam(c.rhsParam), rowAccess(c.lhsRow),
        c.rhsByExpert ? mq::RowAccess::Expert : mq::RowAccess::None, columns, c.reduced.str()));
  }

  template <class WriteOp> void emitWrite(const syntax::Write &write);
  Value emitNode(const syntax::Node &node, mlir::ArrayRef<Value> values, mlir::Location loc);

  Value constant(double value, mlir::Location loc) {
    return arith::ConstantOp::create(b, loc, b.getF32FloatAttr(float(value)));
  }
  template <class ScalarOp> Value unary(Value x, mlir::Location loc) {
    return b.createOrFold<ScalarOp>(loc, x);
  }
  template <class ScalarOp> Value binary(Value x, Value y, mlir::Location loc) {
    return b.createOrFold<ScalarOp>(loc, x, y);
  }

public:
  Emitter(mlir::MLIRContext &context, const syntax::Program &program, const syntax::NormalKernel &normal)
      : b(&context), program(program), normal(normal), source(*normal.kernel) {}

  mlir::OwningOpRef<mlir::ModuleOp> emit();
};

/// Comparisons follow IEEE: with a NaN only `!=` holds.
arith::CmpFPredicate predicate(Op op) {
  switch (op) {
  case Op::Lt: return arith::CmpFPredicate::OLT;
  case Op::Le: return arith::CmpFPredicate::OLE;
  case Op::Gt: return arith::CmpFPredicate::OGT;
  case Op::Ge: return arith::CmpFPredicate::OGE;
  case Op::Eq: return arith::CmpFPredicate::OEQ;
  default: return arith::CmpFPredicate::UNE;
  }
}

Value Emitter::emitNode(const syntax::Node &node, mlir::ArrayRef<Value> values, mlir::Location loc) {
  auto operand = [&](unsigned i) { return values[node.operands[i]]; };
  switch (node.op) {
  case Op::Number: return constant(node.number, loc);
  case Op::Scalar: return kernel.getParam(node.index);
  case Op::Neg: return unary<arith::NegFOp>(operand(0), loc);
  case Op::Add: return binary<arith::AddFOp>(operand(0), operand(1), loc);
  case Op::Sub: return binary<arith::SubFOp>(operand(0), operand(1), loc);
  case Op::Mul: return binary<arith::MulFOp>(operand(0), operand(1), loc);
  case Op::Div: return binary<arith::DivFOp>(operand(0), operand(1), loc);
  case Op::Min: return binary<arith::MinimumFOp>(operand(0), operand(1), loc);
  case Op::Max: return binary<arith::MaximumFOp>(operand(0), operand(1), loc);
  case Op::Exp: return unary<math::ExpOp>(operand(0), loc);
  case Op::Tanh: return unary<math::TanhOp>(operand(0), loc);
  case Op::Erf: return unary<math::ErfOp>(operand(0), loc);
  case Op::Sigmoid: {
    Value one = constant(1, loc);
    Value e = unary<math::ExpOp>(unary<arith::NegFOp>(operand(0), loc), loc);
    return binary<arith::DivFOp>(one, binary<arith::AddFOp>(one, e, loc), loc);
  }
  case Op::Lt:
  case Op::Le:
  case Op::Gt:
  case Op::Ge:
  case Op::Eq:
  case Op::Ne: return b.createOrFold<arith::CmpFOp>(loc, predicate(node.op), operand(0), operand(1));
  case Op::Select: return b.createOrFold<arith::SelectOp>(loc, operand(0), operand(1), operand(2));
  case Op::RowWeight:
  case Op::ReadContraction:
  case Op::ReadTensor: break; // reads are region arguments
  }
  llvm_unreachable("all nodes but reads are listed");
}

bool isRead(const syntax::Node &node) {
  return node.op == Op::RowWeight || node.op == Op::ReadContraction || node.op == Op::ReadTensor;
}

template <class WriteOp> void Emitter::emitWrite(const syntax::Write &write) {
  mlir::Location loc = at(write.loc);
  mlir::SmallVector<Value> reads;
  mlir::SmallVector<mlir::Attribute> rows, offsets;
  mlir::SmallVector<int64_t> muls;
  for (const syntax::Node &node : write.nodes) {
    if (!isRead(node)) continue;
    mq::RowAccess row = rowAccess(node.row);
    bool hasColumn = node.hasColumn;
    if (node.op == Op::RowWeight) {
      reads.push_back(kernel.getParam(source.routing));
      row = mq::RowAccess::Weight;
      hasColumn = false;
    } else if (node.op == Op::ReadContraction) {
      reads.push_back(contractions[node.index]);
      row = mq::RowAccess::Row;
      hasColumn = true;
    } else {
      reads.push_back(kernel.getParam(node.index));
    }
    rows.push_back(mq::RowAccessAttr::get(b.getContext(), row));
    muls.push_back(hasColumn ? node.mul : 0);
    offsets.push_back(b.getStringAttr(hasColumn ? node.offset.str() : "-"));
  }
  auto op =
      WriteOp::create(b, loc, kernel.getOutput(write.output), b.getStringAttr(write.columns.str()), reads,
                      b.getArrayAttr(rows), b.getDenseI64ArrayAttr(muls), b.getArrayAttr(offsets));

  mlir::OpBuilder::InsertionGuard guard(b);
  mlir::Block *block = b.createBlock(&op.getBody());
  mlir::SmallVector<Value> values;
  for (const syntax::Node &node : write.nodes)
    values.push_back(isRead(node) ? Value(block->addArgument(b.getF32Type(), loc))
                                  : emitNode(node, values, loc));
  mq::YieldOp::create(b, loc, values.back());

  // Folding leaves constants behind that nobody uses.
  for (mlir::Operation &inner : llvm::make_early_inc_range(llvm::reverse(*block)))
    if (mlir::isOpTriviallyDead(&inner)) inner.erase();
}

mlir::OwningOpRef<mlir::ModuleOp> Emitter::emit() {
  mlir::OwningOpRef<mlir::ModuleOp> module = mlir::ModuleOp::create(b, at({1, 1}));
  b.setInsertionPointToEnd(module->getBody());
  emitCodecs();

  mlir::SmallVector<StringRef> params, outputs;
  for (const syntax::Param &param : source.params) params.push_back(param.name);
  for (const syntax::Param &output : source.outputs) outputs.push_back(output.name);
  mlir::Location loc = at(source.loc);
  kernel = mq::KernelOp::create(b, loc, b.getStringAttr(source.name), b.getStrArrayAttr(params),
                                b.getStrArrayAttr(outputs), b.getStringAttr(source.rows.str()),
                                /*schedule=*/mlir::StringAttr(), /*problem=*/mlir::DictionaryAttr());
  mlir::Block *block = b.createBlock(&kernel.getBody());
  for (const auto *list : {&source.params, &source.outputs})
    for (const syntax::Param &param : *list) block->addArgument(typeOf(param), at(param.loc));

  for (const syntax::Contraction &contraction : normal.contractions) emitContraction(contraction);
  for (const syntax::Write &write : normal.writes)
    write.combine ? emitWrite<mq::CombineOp>(write) : emitWrite<mq::StoreOp>(write);
  mq::ReturnOp::create(b, loc);
  return module;
}

} // namespace

void loadEmitDialects(mlir::MLIRContext &context) {
  context.loadDialect<mq::QuernDialect, arith::ArithDialect, math::MathDialect>();
}

mlir::OwningOpRef<mlir::ModuleOp> emitQuern(mlir::MLIRContext &context, const syntax::Program &program,
                                            const syntax::NormalKernel &kernel) {
  loadEmitDialects(context);
  return Emitter(context, program, kernel).emit();
}

} // namespace quern
