// What may be tuned: schedules that change the time of a call and never its bits, what the model expects of
// them, and why the others are left out.
#pragma once
#include "runtime/tune/Tuner.h"

namespace quern::tune {

/// Sizes that the models need.
struct Shape {
  int64_t n = 0, k = 0;          // of the packed operand
  int64_t experts = 1, rows = 0; // rows of all experts together
  int64_t block = 64, scaleBytes = 4;
  bool zero = false;                  // zero points
  bool halved = false;                // an output column takes rows j and j + N/2
  bool byToken = false;               // activations are gathered by token
  int64_t outputBytes = 2, units = 0; // of one output element; multiprocessors or threads
  int64_t meanRows() const { return experts ? (rows + experts - 1) / experts : rows; }
};
/// Every dimension of the problem: given or chosen, with "top_k" and "R".
Expected<std::map<std::string, int64_t>> allDims(const Problem &problem);
Expected<Shape> shapeOf(const Problem &problem, const jit::Request &request);
Expected<Workload> workloadOf(const Problem &problem, const jit::Request &request);

/// Every point of the space with its verdict; kept ones first, by prediction. The default is not among them.
std::vector<Candidate> enumerate(const jit::Request &request, const Shape &shape,
                                 const DeviceIdentity &device, const Options &options);

} // namespace quern::tune
