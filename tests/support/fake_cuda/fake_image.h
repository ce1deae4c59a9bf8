// What the fake driver looks at of an image: cubin or not, and how long it is.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace quern::test {

inline bool isCubin(const char *bytes) {
  return std::memcmp(bytes,
                     "\x7f"
                     "ELF",
                     4) == 0;
}

/// Seven bytes of the header's padding (from byte 9) that make a cubin one that the driver calls invalid.
constexpr char damagedMark[] = "DAMAGED";
inline bool isDamaged(const char *cubin) { return std::memcmp(cubin + 9, damagedMark, 7) == 0; }

/// Bytes of a 64-bit ELF file: up to the end of its section headers, or of its last section.
inline size_t elfSize(const char *bytes) {
  uint64_t at, end;
  uint16_t size, count;
  std::memcpy(&at, bytes + 40, 8);
  std::memcpy(&size, bytes + 58, 2);
  std::memcpy(&count, bytes + 60, 2);
  end = at + uint64_t(size) * count;
  for (int i = 0; i < count; ++i) {
    const char *header = bytes + at + uint64_t(size) * i;
    uint32_t type;
    uint64_t offset, length;
    std::memcpy(&type, header + 4, 4);
    std::memcpy(&offset, header + 24, 8);
    std::memcpy(&length, header + 32, 8);
    if (type != 8) end = std::max(end, offset + length); // 8: no bytes in the file
  }
  return end;
}

} // namespace quern::test
