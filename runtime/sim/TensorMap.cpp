// The argument checks of cuTensorMapEncodeTiled for the maps that the kernels use.
#include "runtime/sim/TensorMap.h"
#include "runtime/sim/Sim.h"
#include <cstring>
#include <fmt/format.h>

namespace quern::sim {

std::string encodeTensorMap(void *map128, int elementBytes, const void *base, uint64_t columns, uint64_t rows,
                            uint64_t rowBytes, uint32_t boxColumns, uint32_t boxRows, bool swizzle128) {
  if (elementBytes != 1 && elementBytes != 2 && elementBytes != 4 && elementBytes != 8)
    return fmt::format("element size {} is not 1, 2, 4 or 8 bytes", elementBytes);
  if (reinterpret_cast<uintptr_t>(base) % 16) return "the base address is not 16-byte aligned";
  if (columns == 0 || columns > 1ull << 32 || rows == 0 || rows > 1ull << 32)
    return fmt::format("{} x {} elements: every dimension must be 1 to 2^32", rows, columns);
  if (rowBytes % 16 || rowBytes >= 1ull << 40)
    return fmt::format("row stride {} is not a multiple of 16 bytes below 2^40", rowBytes);
  if (columns * elementBytes > rowBytes && rows > 1)
    return fmt::format("row stride {} is less than {} columns of {} bytes", rowBytes, columns, elementBytes);
  if (boxColumns == 0 || boxColumns > 256 || boxRows == 0 || boxRows > 256)
    return fmt::format("box {} x {}: every dimension must be 1 to 256", boxRows, boxColumns);
  if (boxColumns * elementBytes % 16)
    return fmt::format("a box row of {} bytes is not a multiple of 16", boxColumns * elementBytes);
  if (swizzle128 && boxColumns * elementBytes > 128)
    return fmt::format("a box row of {} bytes is wider than the 128-byte swizzle", boxColumns * elementBytes);
  TensorMap map{};
  map.magic = TensorMap::signature;
  map.base = static_cast<const char *>(base);
  map.columns = columns;
  map.rows = rows;
  map.rowBytes = rowBytes;
  map.boxColumns = boxColumns;
  map.boxRows = boxRows;
  map.elementBytes = uint32_t(elementBytes);
  map.swizzle = swizzle128 ? 128 : 0;
  std::memset(map128, 0, 128);
  std::memcpy(map128, &map, sizeof map);
  return "";
}

} // namespace quern::sim
