// The semantic checks: names, ranks, shapes, ranges and limits of a parsed program. Each failure carries a
// rule of LANGUAGE.md.
#pragma once
#include "compiler/syntax/Dims.h"
#include "compiler/syntax/Source.h"
#include <unordered_map>
#include <unordered_set>

namespace quern::syntax {

/// What an expression costs after inlining; filled bottom up, so that nothing is inlined before it is known
/// to be small.
struct Cost {
  int64_t size = 0;
  int64_t depth = 0;
};

/// First failure of the checks; `loc` points into the source.
struct Failure {
  Loc loc;
  std::string message, rule;
};

/// Checks all fns: names, arity, order, cost. `costs` gets one entry per fn.
class FnChecker {
public:
  FnChecker(const Program &program) : program(program) {}
  std::optional<Failure> run();

  /// Checks callee and number of arguments of a Call.
  std::optional<Failure> checkCall(const Expr &call) const;
  /// Cost of a node from its children's; adds the fn's own for a call.
  Cost costOf(const Expr &expr, const std::vector<Cost> &children) const;
  /// limit.inline and limit.depth.
  static std::optional<Failure> checkCost(const Cost &cost, Loc loc);

private:
  std::optional<Failure> checkExpr(const Expr &expr, const std::unordered_set<std::string> &names,
                                   Cost &cost) const;

  const Program &program;
  std::vector<Cost> costs;
  int current = -1; // the fn being checked
  std::unordered_map<std::string, int> indexOf;
};

/// Checks one kernel and fills the fields of Kernel that the checks own.
class KernelChecker {
public:
  KernelChecker(const Program &program, const FnChecker &fns, Kernel &kernel)
      : program(program), fns(fns), kernel(kernel) {}
  std::optional<Failure> run();

private:
  /// What a name in the kernel means.
  struct Symbol {
    enum Kind : uint8_t { Param, Output, Local } kind;
    int index;
  };
  /// One affine index to be proved in range once the variables' ranges are known.
  struct Use {
    const Index *index;
    Dim size;
    const std::string *tensor;
    bool exact; // the operand's columns must be the variable's whole range
  };
  struct LocalInfo {
    bool pure = false; // the value is one sum
    bool read = false;
    Cost cost;
    Loc loc;
  };

  // CheckKernel.cpp
  bool declare();
  bool declareParam(const syntax::Param &param, bool isOutput, int index);
  bool checkDims(const syntax::Param &param, bool isOutput);
  bool checkRows();
  bool checkStmt(Stmt &stmt);
  bool checkTarget(const Stmt &stmt, const Symbol *&symbol);
  bool checkOutputTarget(const Stmt &stmt, int output);
  bool checkVariable(const std::string &name, Loc loc);
  bool finish();

  // CheckExprs.cpp
  bool checkExpr(const Expr &expr, Cost &cost);
  bool checkName(const Expr &expr);
  bool checkAccess(const Expr &expr, Cost &cost);
  bool checkLocalAccess(const Expr &expr, int local, Cost &cost);
  bool checkSum(const Expr &sum, const std::string &column, Cost &cost);
  bool checkLhs(const Expr &lhs, const std::string &variable, Cost &cost);
  bool checkRhs(const Expr &rhs, const std::string &column, const std::string &variable);
  bool checkRowIndex(const Index &index, const Dim &size, const std::string &tensor, bool expertAllowed);
  bool addUse(const Index &index, const Dim &size, const std::string &tensor, const std::string &variable,
              bool exact);
  const syntax::Param *paramFor(const Expr &access);
  const Symbol *find(const Expr &expr, std::string_view what);

  // CheckRanges.cpp
  bool inferRanges(Stmt &stmt, const Dim *outputColumns, Dim &columns);
  bool proveRanges(const std::vector<LoopVar> &loops);
  std::vector<std::string> visibleNames() const;

  bool fail(Loc loc, std::string message, std::string_view rule);
  bool fail(std::optional<Failure> error);
  bool hasRouting() const { return kernel.routing >= 0; }
  const syntax::Param &routing() const { return kernel.params[kernel.routing]; }

  const Program &program;
  const FnChecker &fns;
  Kernel &kernel;
  DimFacts facts;
  std::unordered_map<std::string, Symbol> symbols;
  std::unordered_set<std::string> dimNames, codecNames;
  std::vector<bool> paramUsed, outputWritten;
  std::vector<LocalInfo> locals; // beside kernel.locals
  std::optional<Failure> failure;

  // Of the statement being checked.
  std::string columnVar;
  std::vector<std::string> sumVars; // all of them, in order
  std::vector<std::string> activeSums;
  std::vector<Use> uses;
};

} // namespace quern::syntax
