// See ElfSymbols.h. Layouts: <elf.h>, System V ABI chapter 4.
#include "runtime/driver/ElfSymbols.h"
#include <cstring>
#include <elf.h>
#include <optional>

namespace quern::driver {
namespace {

template <class T> std::optional<T> at(std::string_view bytes, uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::optional<std::string_view> part(std::string_view bytes, const Elf64_Shdr &section) {
  if (section.sh_offset > bytes.size() || bytes.size() - section.sh_offset < section.sh_size)
    return std::nullopt;
  return bytes.substr(section.sh_offset, section.sh_size);
}

/// The zero-terminated text at `offset`.
std::string_view textAt(std::string_view table, uint64_t offset) {
  if (offset >= table.size()) return {};
  table.remove_prefix(offset);
  size_t end = table.find('\0');
  return end == table.npos ? std::string_view() : table.substr(0, end);
}

bool tableDefines(std::string_view elf, const Elf64_Ehdr &header, const Elf64_Shdr &table,
                  std::string_view symbol) {
  if (table.sh_link >= header.e_shnum) return false;
  auto names = at<Elf64_Shdr>(elf, header.e_shoff + uint64_t(table.sh_link) * sizeof(Elf64_Shdr));
  auto symbols = part(elf, table), strings = names ? part(elf, *names) : std::nullopt;
  if (!symbols || !strings) return false;
  for (uint64_t offset = 0; offset + sizeof(Elf64_Sym) <= symbols->size(); offset += sizeof(Elf64_Sym)) {
    Elf64_Sym entry = *at<Elf64_Sym>(*symbols, offset);
    if (ELF64_ST_TYPE(entry.st_info) == STT_FUNC && entry.st_shndx != SHN_UNDEF &&
        textAt(*strings, entry.st_name) == symbol)
      return true;
  }
  return false;
}

} // namespace

bool definesFunction(std::string_view elf, uint16_t machine, std::string_view symbol) {
  auto header = at<Elf64_Ehdr>(elf, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
      header->e_machine != machine || header->e_shentsize != sizeof(Elf64_Shdr) ||
      header->e_shoff > elf.size())
    return false;
  bool found = false;
  for (unsigned i = 0; i < header->e_shnum; ++i) {
    auto section = at<Elf64_Shdr>(elf, header->e_shoff + uint64_t(i) * sizeof(Elf64_Shdr));
    if (!section || (section->sh_type != SHT_NOBITS && !part(elf, *section))) return false;
    if (section->sh_type == SHT_SYMTAB || section->sh_type == SHT_DYNSYM)
      found = found || tableDefines(elf, *header, *section, symbol);
  }
  return found;
}

} // namespace quern::driver
