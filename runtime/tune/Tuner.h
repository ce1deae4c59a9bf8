// Finding the best schedule of one call: the space, the model that ranks it, the protocol that measures it,
// and the record that keeps the answer. README.md has the protocol in words; what a launch sees is Tuning.h.
#pragma once
#include "compiler/syntax/Ast.h"
#include "runtime/cache/Key.h"
#include "runtime/tune/Tuning.h"
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace quern::tune {

/// Part of every key: figures of another protocol are never compared with these (README.md).
inline constexpr int protocolVersion = 1;

/// What a sample times. Part of the key, because rankings differ.
enum class Policy : uint8_t {
  Device, // the device's own time, queued behind other work: also what a replayed graph sees
  Call,   // from an idle device to an idle device, the host's work included
};
std::string_view name(Policy policy); // "device", "call"
std::optional<Policy> parsePolicy(std::string_view text);

/// Both are measured; a schedule counts by the worse one.
enum class Skew : uint8_t { Uniform, Zipf };
std::string_view name(Skew skew); // "uniform", "zipf"

/// The call to tune, without data: those are generated, seeded, in memory of the tuner's own.
struct Problem {
  std::shared_ptr<const syntax::Program> program;
  std::string kernel;
  std::map<std::string, int64_t> dims; // symbols and "top_k"; what is missing is chosen as `quern run` does
  DType act = DType::BF16, quant = DType::BF16;
  int64_t block = 0; // codes per scale; 0: the codec's own
  std::string target =
      "cpu";       // "cpu", "sim", "cuda", or "sm_90a": ranked by the model alone, without a device
  int ordinal = 0; // of the cuda device
};

enum class Verdict : uint8_t {
  Default,   // what a call uses that nobody tuned; always measured
  Kept,      // to be measured
  Pruned,    // the model expects it to be slower
  Illegal,   // the schedule's own checks refuse it
  Duplicate, // compiles to the schedule of an earlier one
};
std::string_view name(Verdict verdict);

/// A point of the space.
struct Candidate {
  std::string schedule; // one line; the default's is the whole line once it has been compiled
  Verdict verdict = Verdict::Kept;
  std::string reason;     // of the verdict, in words, with the figures it rests on; never empty
  double predictedUs = 0; // by the cost model, a call with uniform routing; 0: no prediction
  std::string limiter;    // what bounds it, by the model: "hbm", "tensor", "decode", ...
  bool operator==(const Candidate &) const = default;
};

/// Microseconds of one schedule under one routing.
struct Timing {
  Skew skew = Skew::Uniform;
  std::vector<double> samplesUs; // in the order taken; bad rounds left out
  int dropped = 0;               // rounds left out: clocks fell, or the device throttled
  double medianUs = 0;
  double lowUs = 0, highUs = 0; // interval of the median, 99 %, from order statistics
  bool operator==(const Timing &) const = default;
};
/// Fills median and interval from the samples.
void summarize(Timing &timing);

enum class FailureKind : uint8_t {
  Compile, // the compiler or ptxas refused it, or did not end
  Wrong,   // differs from the oracle, or leaves elements unwritten
  Bits,    // right, but not the default's bits
  Crash,   // the worker process died
  Hang,    // no answer within the limit
  Device,  // the device reported an error
  Memory,  // does not fit the workspace
};
std::string_view name(FailureKind kind);

struct Failure {
  FailureKind kind = FailureKind::Compile;
  std::string message;
  std::string repro;     // a command that shows it
  std::string assembler; // ptxas and its version, where a cubin was made
  bool operator==(const Failure &) const = default;
};

struct Measurement {
  std::string schedule;        // the whole line, as the image has it
  size_t candidate = 0;        // index in Result::candidates
  std::string image;           // digest of the image's code, 16 hexadecimal digits; empty when nobody can say
  std::vector<Timing> timings; // one per routing
  std::optional<Failure> failure;
  std::string stopped; // why it was not measured to the end: "slower than ...", "out of time"; empty: it was
  /// Median of the worse routing; infinite without samples.
  double worstUs() const;
  bool operator==(const Measurement &) const = default;
};

/// Bounds and seeds. The defaults are the protocol's.
struct Options {
  Policy policy = Policy::Device;
  double seconds = 120;   // of measuring, compilation not counted; what is found by then counts
  int maxCandidates = 24; // kept after ranking, without the default
  int minRounds = 5;      // before anyone is dropped
  int maxRounds = 25;
  int finalRounds = 40;        // of the default against the winner
  double minGain = 0.02;       // a winner must be faster than the default by this share, beyond the intervals
  double pruneAbove = 1.6;     // candidates predicted slower than this times the best are not measured
  uint64_t seed = 1;           // of data, routing and order
  int jobs = 0;                // compilers at once; 0: Quern's own bound
  bool measure = true;         // false: rank by the model alone
  bool retune = false;         // measure although there is a record, and replace it
  uint64_t workspaceBytes = 0; // of generated data on the device; 0: QUERN_TUNE_WORKSPACE
  std::string executable;      // of the worker; empty: `quern` beside this program or module
};

/// What the call is, for reports and rooflines.
struct Workload {
  std::map<std::string, int64_t> dims; // all of them
  int64_t experts = 1, rows = 0;       // rows in all (live)
  int64_t rowsPerExpert = 0;           // the bucket of the key
  double flops = 0;                    // of a call: 2 per multiply-add
  double bytes = 0; // that a call must move at least: weights of experts in use, rows, outputs
  bool operator==(const Workload &) const = default;
};

struct Result {
  std::string schedule;        // to use; empty: the default
  std::string reason;          // why this one
  std::string defaultSchedule; // the whole line; empty when it could not be compiled
  DeviceIdentity device;
  Policy policy = Policy::Device;
  Workload work;
  /// The whole space: kept first, by prediction. A record holds the kept ones; the others are counted.
  std::vector<Candidate> candidates;
  int64_t pruned = 0, illegal = 0;
  std::vector<Measurement> measurements; // the default first
  /// The last race: [0] the default, [1] the winner. Empty when the default won before.
  std::vector<Measurement> finals;
  std::string refused;     // why nothing was measured; empty: it was, or the answer was on record
  bool fromRecord = false; // found in the cache: no measurement was made
  int64_t samples = 0;     // measurements made by this call
  double compileSeconds = 0, measureSeconds = 0;
  cache::Key key;
  std::string recordPath; // the file that holds the answer; empty: not kept
  bool operator==(const Result &) const = default;
};

struct Progress {
  enum Stage : uint8_t { Ranking, Compiling, Checking, Measuring, Final, Done } stage = Ranking;
  size_t done = 0, total = 0; // of this stage
  std::string text;           // one line: the candidate at hand, the best so far
};
std::string_view name(Progress::Stage stage);
using ProgressFn = std::function<void(const Progress &)>;

/// Tunes one call, or finds the record of an earlier tuning. Failures of candidates are in the result; errors
/// are the caller's (unknown kernel or dimension) or mean that nothing can be said (the default fails).
/// Measures in a child process, never on the caller's data. A record is published when the race was fair; the
/// first one on a machine wins, and is what is returned.
Expected<Result> tune(const Problem &problem, const Options &options = {}, const ProgressFn &progress = {});

/// The space of a problem with verdicts, reasons and predictions: no compilation, no device.
Expected<std::vector<Candidate>> rank(const Problem &problem, const Options &options = {});

/// A result as JSON text and back: what a record of the cache holds beside its key. Gives back everything but
/// the key, the path, and pruned and illegal candidates, which are counted only. Errors: no JSON, another
/// protocol.
std::string printRecord(const Result &result);
Expected<Result> parseRecord(std::string_view text);

/// The request of a problem, as a launch makes it; `schedule` is empty, `rowsPerExpert` is the bucket for the
/// CPU too.
Expected<jit::Request> requestOf(const Problem &problem);

/// The child process: reads commands from `in`, answers on `out`, one JSON object per line (README.md).
/// Returns the exit code. `quern tune-worker` runs it on its own stdin and stdout.
int tuneWorker(int in, int out);

} // namespace quern::tune
