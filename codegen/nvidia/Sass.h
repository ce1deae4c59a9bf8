// Reading SASS, the machine code of a cubin as cuobjdump or nvdisasm prints it: the main loops and what they
// issue. Text in, plain data out.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace quern::nvidia {

/// The pipe that executes an instruction. Alu: integer, logic, permutes, comparisons, conversions to pairs;
/// Fma: fp32 and half2 arithmetic, integer multiply-add; Uniform: once for a warp on the scalar path; Memory:
/// loads and stores; Sync: barriers and waits.
enum class Pipe : uint8_t { Tensor, Alu, Fma, Shuffle, Memory, Uniform, Sync, Control, Other };
std::string_view name(Pipe pipe);
/// Of a mnemonic ("PRMT", "LOP3.LUT"); the part before the first dot decides.
Pipe pipeOf(std::string_view mnemonic);

struct Instruction {
  int64_t address = 0;
  std::string mnemonic, operands;
  bool predicated = false;
};

struct SassFunction {
  std::string name;
  std::vector<Instruction> code;
  std::map<std::string, int64_t> labels; // nvdisasm names branch targets
};
/// The functions of a listing; text that is not SASS gives none.
std::vector<SassFunction> readSass(std::string_view sass);

/// An innermost loop with wgmma instructions.
struct MainLoop {
  std::string function;
  int64_t first = 0, last = 0; // addresses; parts may lie out of line, beyond other code
  int64_t width = 0;           // N of its HGMMA (the largest)
  int64_t wgmmas = 0, instructions = 0;
  std::map<Pipe, int64_t> pipes;
  std::map<std::string, int64_t> mnemonics; // without modifiers
  /// Steps of 64 columns (four wgmma of k16) that one pass makes.
  double steps() const { return wgmmas / 4.0; }
  int64_t of(Pipe pipe) const;
};

/// In order of address. Empty when there is no wgmma, or the text is not SASS.
std::vector<MainLoop> mainLoops(std::string_view sass);

} // namespace quern::nvidia
