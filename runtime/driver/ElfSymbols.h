// A look into 64-bit ELF files (cubins, shared objects) without trusting them.
#pragma once
#include <cstdint>
#include <string_view>

namespace quern::driver {

inline constexpr uint16_t machineX86 = 62, machineCuda = 190; // e_machine

/// Whether the bytes are a complete 64-bit little-endian ELF file for `machine` that defines the function
/// `symbol`. Every offset is checked against the size.
bool definesFunction(std::string_view elf, uint16_t machine, std::string_view symbol);

} // namespace quern::driver
