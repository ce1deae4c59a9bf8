// The instruction sets that CPU kernels are compiled for, found without LLVM: a warm process knows its key
// before any compiler is opened.
#pragma once
#include <string>

namespace quern {

/// This CPU's features by LLVM's names, in fixed order, each "+name" or "-name", joined by commas; less what
/// the operating system does not save, then changed by QUERN_CPU_FEATURES. Empty on other machines than
/// x86-64. Lists every feature that generated code can use, so it is the whole input of the code generator; a
/// feature that is not listed is off.
std::string cpuFeatures();

/// The same with `changes` in place of QUERN_CPU_FEATURES: "+avx2,-amx", left to right. Turning off a base
/// feature turns off those built on it; "amx" and "avx512" name groups.
std::string cpuFeatures(const std::string &changes);

} // namespace quern
