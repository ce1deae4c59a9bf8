// The kernels, schedules and shapes of the planted faults. Small, but: experts without rows, one with two
// tiles, partial tiles of both widths, rows beyond the live ones, and more steps per CTA than the ring has
// stages.
#include "tests/sim/Faults.h"

namespace quern::simtest {

static const std::map<std::string, int64_t> routed = {
    {"T", 62}, {"E", 19}, {"N", 256}, {"K", 256}, {"top_k", 2}};
// More experts than half a warp has lanes: the last step of the table's scan counts.
static const std::vector<int64_t> rows = {20, 0, 70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33, 0};

const Subject sorted = {
    "sorted",  "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject paired = {
    "cluster", "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=2 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject fused = {
    "fused",   "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=4 cluster=1 gather=fused decode=exact regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject fast = {
    "fast",    "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=fast regs=232/40 ctas=1 split=1",
    routed,    rows,
    false,     true};
const Subject pairs = {
    "pairs",   "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=pairs regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject halved = {
    "halved",  "qwen3.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject combined = {
    "combine", "gpt_oss.qn",
    "down",    "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
    routed,    rows};
const Subject square = {
    "square",
    "linear.qn",
    "linear",
    "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
    {{"T", 50}, {"N", 192}, {"K", 192}},
    {}};
const Subject edge = {"edge",
                      "gpt_oss.qn",
                      "gate_up",
                      "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
                      {{"T", 62}, {"E", 19}, {"N", 320}, {"K", 128}, {"top_k", 2}},
                      rows};

const Subject split = {
    "split",   "gpt_oss.qn",
    "gate_up", "bm=128 bn=32 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=2",
    routed,    rows};

const Subject ahead = {
    "ahead",   "gpt_oss.qn",
    "gate_up", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=ahead regs=232/40 ctas=1 split=1",
    routed,    rows};

} // namespace quern::simtest
