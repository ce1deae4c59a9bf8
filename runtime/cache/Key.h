// What an entry of the cache is found by: named fields whose text is hashed, stored in the entry, and
// compared at every hit.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace quern::cache {

/// Fields in the maker's fixed order: everything that changes the entry's bytes, and nothing else. No path,
/// process, address, time or locale may enter a value.
struct Key {
  struct Field {
    std::string name, value;
    bool operator==(const Field &) const = default;
  };
  std::string kind; // "cpu", "gpu" (images), "device" (kernels/*.cu), "tuning", or notes: "tool", "made-by",
                    // "rebuilt"
  std::vector<Field> fields;

  void add(std::string name, std::string value) { fields.push_back({std::move(name), std::move(value)}); }
  /// "kind\nname=value\n..."; backslashes and line ends in a value are escaped, so that texts are equal
  /// exactly when keys are.
  std::string text() const;
  /// 32 hexadecimal digits: XXH3 (128 bits) of text(). Names the file; never trusted without the text.
  std::string hash() const;
  bool operator==(const Key &) const = default;
};

/// The key whose text this is, or false: for `cache show` and `cache explain`.
bool parseKey(std::string_view text, Key &key);

} // namespace quern::cache
