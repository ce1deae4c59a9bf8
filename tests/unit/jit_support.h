// What the tests of compiled kernels share: calls on generated data whose arguments lie between inaccessible
// pages, checked against the fp64 oracle.
#pragma once
#include "runtime/jit/Jit.h"
#include "runtime/oracle/Compare.h"
#include "runtime/oracle/Generate.h"
#include "runtime/oracle/Random.h"
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

namespace quern::jittest {

/// Base of all seeds: QUERN_TEST_SEED, else 1. Printed when the program starts.
uint64_t seed();

/// Bytes of their own pages. The data end where an inaccessible page begins (`flushRight`) or start where one
/// ends, so that a read or write outside is a fault, which ends the process with the call's description. The
/// rest of the pages is a guard zone.
class GuardedBytes {
  char *map = nullptr;
  size_t mapped = 0, size = 0, offset = 0; // offset of the data inside the accessible pages
  char *pages() const;

public:
  GuardedBytes(size_t bytes, bool flushRight);
  GuardedBytes(GuardedBytes &&other) noexcept;
  GuardedBytes(const GuardedBytes &) = delete;
  ~GuardedBytes();
  void *data() const { return pages() + offset; }
  /// While sealed, a write is a fault too.
  void seal(bool sealed) const;
  bool guardsIntact() const;
};

/// How a tensor's elements lie in memory.
enum class Strides { PaddedRows, Transposed, NegativeRows, NegativeLast, ZeroRows, EveryOther, ZeroLast };
inline constexpr Strides allStrides[] = {Strides::PaddedRows,   Strides::Transposed, Strides::NegativeRows,
                                         Strides::NegativeLast, Strides::ZeroRows,   Strides::EveryOther,
                                         Strides::ZeroLast};
const char *name(Strides s);

/// A kernel and the options of its generated data.
struct Case {
  std::string source; // a shipped file's name, or .qn text
  std::string kernel;
  oracle::GenerateOptions options; // its layout is not used
  Layout layout = Layout::Cpu;
  /// As `quern run` takes it.
  std::string str() const;
};
void PrintTo(const Case &c, std::ostream *out);

/// One module per text for the whole process, so that tests with the same shape share a compiled kernel.
std::shared_ptr<Module> moduleOf(const std::string &source);

class Call {
public:
  /// Generates; packed operands are in the case's layout. Failures are test failures and leave ok() false.
  explicit Call(const Case &c);
  bool ok() const { return kernel != nullptr; }

  std::shared_ptr<Module> module;
  const syntax::Kernel *kernel = nullptr;
  std::vector<Arg> args;
  std::vector<oracle::OutputBuffer> outputs;

  TensorView &tensor(const std::string &name);
  PackedView &packed(const std::string &name);
  RoutingView &routing();
  const Routing &rows() const { return *route; }

  /// The routing becomes ids[T, top_k] with `weights`.
  void setRouting(const std::vector<int64_t> &ids, const std::vector<float> &weights);
  /// Expert e gets rows[e] rows, from shuffled tokens; the pairs left over get ids outside 0..E-1.
  void setRowsPerExpert(const std::vector<int64_t> &rows);
  /// Lays the tensor out anew. ZeroRows and ZeroLast keep its first row or column.
  void setStrides(const std::string &tensor, Strides how);
  void fill(const std::string &tensor, const std::function<float(int64_t)> &value);

  /// Fills the outputs with marks, seals the inputs and runs.
  Status run();
  /// run(), then the guards, then every output within the oracle's gates.
  void expectCorrect();
  /// As expectCorrect, but every element must be the oracle's value rounded once: for exact data.
  void expectExact();
  /// The bytes of all outputs of the last run.
  std::string bits() const;

private:
  Case what;
  std::vector<GuardedBytes> memory;
  std::unique_ptr<Routing> route;
  void *keep(const void *source, int64_t bytes);
  void keepRouting();
  Arg &find(const std::string &name);
  bool ran();
};

/// Bits of element i of a tensor, and those of `value` rounded to its dtype; both zeros are the same.
uint32_t bitsOf(const TensorView &t, int64_t i);
uint32_t bitsOf(DType type, float value);

/// "cpu isa=avx2 dot=..." of a kernel compiled now, or the error's text.
std::string currentSchedule();
/// The word after "isa=" in it.
std::string currentIsa();

} // namespace quern::jittest
