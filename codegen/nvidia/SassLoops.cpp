// The main loops of a SASS listing: natural loops of its control flow. A wait's second try lies out of line
// and branches back into the middle of a loop, so addresses alone would not tell.
#include "codegen/nvidia/Sass.h"
#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

namespace quern::nvidia {
namespace {

/// Where a branch goes: "0x220" or "`(.L_x_1)", after an optional predicate.
std::optional<int64_t> target(const SassFunction &f, const Instruction &i) {
  if (!i.mnemonic.starts_with("BRA")) return std::nullopt;
  std::string_view text = i.operands;
  if (size_t open = text.find("`("); open != std::string_view::npos) {
    auto label = f.labels.find(std::string(text.substr(open + 2, text.find(')', open) - open - 2)));
    return label == f.labels.end() ? std::nullopt : std::optional(label->second);
  }
  size_t number = text.rfind("0x");
  if (number == std::string_view::npos) return std::nullopt;
  int64_t value = 0;
  std::from_chars(text.data() + number + 2, text.data() + text.size(), value, 16);
  return value;
}

bool endsBlock(const Instruction &i) {
  return i.mnemonic.starts_with("BRA") || i.mnemonic.starts_with("BRX") || i.mnemonic.starts_with("EXIT") ||
         i.mnemonic.starts_with("RET");
}
bool fallsThrough(const Instruction &i) {
  bool condition =
      i.predicated || (i.mnemonic.starts_with("BRA") && i.operands.find(',') != std::string::npos);
  return !endsBlock(i) || condition;
}

/// Basic blocks and their edges. Block 0 is the entry; blocks that nothing known leads to (targets of an
/// indirect branch) are entries too.
struct Graph {
  std::vector<size_t> starts; // index of each block's first instruction
  std::vector<std::vector<size_t>> successors, predecessors;
  std::vector<std::vector<bool>> dominators;

  explicit Graph(const SassFunction &f) {
    std::map<int64_t, size_t> at;
    for (size_t i = 0; i < f.code.size(); ++i) at[f.code[i].address] = i;
    std::set<size_t> leaders{0};
    for (size_t i = 0; i < f.code.size(); ++i) {
      if (auto to = target(f, f.code[i]); to && at.contains(*to)) leaders.insert(at[*to]);
      if (endsBlock(f.code[i]) && i + 1 < f.code.size()) leaders.insert(i + 1);
    }
    starts.assign(leaders.begin(), leaders.end());
    successors.resize(starts.size()), predecessors.resize(starts.size());
    for (size_t b = 0; b < starts.size(); ++b) {
      const Instruction &last = f.code[(b + 1 < starts.size() ? starts[b + 1] : f.code.size()) - 1];
      if (fallsThrough(last) && b + 1 < starts.size()) connect(b, b + 1);
      if (auto to = target(f, last); to && at.contains(*to))
        connect(b, std::ranges::lower_bound(starts, at[*to]) - starts.begin());
    }
    findDominators();
  }

  void connect(size_t from, size_t to) { successors[from].push_back(to), predecessors[to].push_back(from); }

  /// dominators[b][d]: every way to b passes d. By iteration to the greatest fixed point.
  void findDominators() {
    size_t count = starts.size();
    dominators.assign(count, std::vector<bool>(count, true));
    auto isEntry = [&](size_t b) { return b == 0 || predecessors[b].empty(); };
    for (size_t b = 0; b < count; ++b)
      if (isEntry(b)) dominators[b].assign(count, false), dominators[b][b] = true;
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t b = 0; b < count; ++b) {
        if (isEntry(b)) continue;
        std::vector<bool> now(count, true);
        for (size_t p : predecessors[b])
          for (size_t d = 0; d < count; ++d) now[d] = now[d] && dominators[p][d];
        now[b] = true;
        if (now != dominators[b]) dominators[b] = std::move(now), changed = true;
      }
    }
  }

  /// Header -> blocks of the natural loops: all that reaches a back edge without passing the header.
  std::map<size_t, std::set<size_t>> loops() const {
    std::map<size_t, std::set<size_t>> found;
    for (size_t from = 0; from < starts.size(); ++from)
      for (size_t header : successors[from]) {
        if (!dominators[from][header]) continue;
        std::set<size_t> &body = found[header];
        body.insert(header);
        std::vector<size_t> todo{from};
        while (!todo.empty()) {
          size_t b = todo.back();
          todo.pop_back();
          if (body.insert(b).second) todo.insert(todo.end(), predecessors[b].begin(), predecessors[b].end());
        }
      }
    return found;
  }
};

MainLoop summarize(const SassFunction &f, const Graph &graph, const std::set<size_t> &blocks) {
  MainLoop loop;
  loop.function = f.name, loop.first = f.code[graph.starts[*blocks.begin()]].address;
  for (size_t b : blocks)
    for (size_t n = graph.starts[b]; n < (b + 1 < graph.starts.size() ? graph.starts[b + 1] : f.code.size());
         ++n) {
      const Instruction &i = f.code[n];
      std::string base = i.mnemonic.substr(0, i.mnemonic.find('.'));
      ++loop.instructions, ++loop.pipes[pipeOf(base)], ++loop.mnemonics[base];
      loop.last = i.address;
      if (base != "HGMMA") continue;
      ++loop.wgmmas; // HGMMA.64x256x16.F32.BF16
      size_t from = i.mnemonic.find('x') + 1;
      int64_t width = 0;
      std::from_chars(i.mnemonic.data() + from, i.mnemonic.data() + i.mnemonic.size(), width);
      loop.width = std::max(loop.width, width);
    }
  return loop;
}

} // namespace

int64_t MainLoop::of(Pipe pipe) const {
  auto found = pipes.find(pipe);
  return found == pipes.end() ? 0 : found->second;
}

std::vector<MainLoop> mainLoops(std::string_view sass) {
  std::vector<MainLoop> loops;
  for (const SassFunction &f : readSass(sass)) {
    if (f.code.empty()) continue;
    Graph graph(f);
    auto found = graph.loops();
    std::erase_if(found, [&](auto &loop) { return summarize(f, graph, loop.second).wgmmas == 0; });
    for (auto &[header, blocks] : found) {
      bool innermost = std::ranges::none_of(
          found, [&](auto &other) { return other.first != header && blocks.contains(other.first); });
      if (innermost) loops.push_back(summarize(f, graph, blocks));
    }
  }
  return loops;
}

} // namespace quern::nvidia
