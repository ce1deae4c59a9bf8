// Ranges of index variables: found from the dimensions they index, then every index is proved in range for
// all legal sizes.
#include "compiler/syntax/Check.h"
#include <fmt/format.h>

namespace quern::syntax {

/// Fills kernel.loops for `stmt`: the column variable first, then the variables of its sums. `columns` is the
/// column's range.
bool KernelChecker::inferRanges(Stmt &stmt, const Dim *outputColumns, Dim &columns) {
  std::vector<LoopVar> loops;
  const Index &target = stmt.indices[1];
  if (outputColumns) {
    columns = *outputColumns;
  } else { // a local has the columns that its reads leave in range
    std::optional<Dim> smallest;
    for (const Use &use : uses) {
      if (use.index->var != columnVar) continue;
      std::optional<Dim> range = facts.rangeOf(use.index->mul, use.index->offset, use.size);
      if (!range)
        return fail(use.index->loc,
                    fmt::format("the range of {} cannot be told from this index of {} (of size {})",
                                quoted(columnVar), quoted(*use.tensor), use.size.str()),
                    "range.unknown");
      if (smallest && !DimFacts::lessEqual(*smallest, *range) && !DimFacts::lessEqual(*range, *smallest))
        return fail(use.index->loc,
                    fmt::format("{} runs over {} here, but over {} elsewhere in this statement",
                                quoted(columnVar), range->str(), smallest->str()),
                    "range.conflict");
      if (!smallest || DimFacts::lessEqual(*range, *smallest)) smallest = range;
    }
    if (!smallest)
      return fail(
          target.loc,
          fmt::format("{} indexes nothing in this statement, so its range is unknown", quoted(columnVar)),
          "range.unknown");
    columns = *smallest;
  }
  loops.push_back({columnVar, columns});
  std::unordered_map<std::string, const Dim *> sizes; // of the first dimension that each variable indexes
  for (const Use &use : uses) sizes.emplace(use.index->var, &use.size);
  std::unordered_set<std::string>
      known; // several sums may use one variable; proveRanges compares their sizes
  for (const std::string &variable : sumVars)
    if (known.insert(variable).second) loops.push_back({variable, *sizes.at(variable)});
  if (!proveRanges(loops)) return false;
  kernel.loops.push_back(std::move(loops));
  return true;
}

bool KernelChecker::proveRanges(const std::vector<LoopVar> &loops) {
  std::unordered_map<std::string, const LoopVar *> byName;
  for (const LoopVar &loop : loops) byName[loop.name] = &loop;
  for (const Use &use : uses) {
    const Index &index = *use.index;
    const LoopVar *loop = byName.at(index.var);
    if (use.exact && loop->range != use.size)
      return fail(index.loc,
                  fmt::format("{} runs over {}, but this dimension of {} is {}", quoted(index.var),
                              loop->range.str(), quoted(*use.tensor), use.size.str()),
                  "sum.shape");
    if (!facts.inRange(index.mul, loop->range, index.offset, use.size))
      return fail(index.loc,
                  fmt::format("{} runs over {}, so this index of {} is not always below its size {}",
                              quoted(index.var), loop->range.str(), quoted(*use.tensor), use.size.str()),
                  "access.range");
  }
  return true;
}

} // namespace quern::syntax
