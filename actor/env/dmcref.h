// Reads .dmcref fixtures: what dm_control gives for one task, for comparison bit by bit. Test only.
//
// Format: "DMCREF 1", then lines "key value", "array NAME DTYPE NDIM DIMS... OFFSET" and finally
// "data START"; little-endian arrays follow at START + OFFSET.
#ifndef POMPC_ACTOR_ENV_DMCREF_H_
#define POMPC_ACTOR_ENV_DMCREF_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pompc::dmc {

class Dmcref {
 public:
  // NOT_FOUND, INVALID_ARGUMENT: the file cannot be read or is not of this format.
  static absl::StatusOr<Dmcref> Read(const std::string& path);

  // All values of a header key, in order. Empty: no such key.
  std::vector<std::string> Meta(const std::string& key) const;
  // The value of a header key that has to be there.
  std::string Value(const std::string& key) const;
  int Int(const std::string& key) const;

  bool Has(const std::string& array) const { return arrays_.count(array) != 0; }
  std::vector<std::string> ArraysWithPrefix(const std::string& prefix) const;
  // Number of rows (first dimension) of an array, 0 if it is absent.
  size_t Rows(const std::string& array) const;
  // A row as doubles, whatever the type. f8 and u8 keep their bits: see Bits().
  std::vector<double> Row(const std::string& array, size_t row) const;
  uint64_t Bits(const std::string& array, size_t row) const;  // Of a u8 array with one column.

 private:
  struct Array {
    std::string dtype;
    std::vector<size_t> shape;
    size_t offset = 0;
    size_t row_size() const;
  };
  const Array& Get(const std::string& name) const;

  std::multimap<std::string, std::string> meta_;
  std::map<std::string, Array> arrays_;
  std::string data_;
};

// Paths of all fixtures: below the folders in $POMPC_FIXTURES (colon-separated), by default the
// source tree's tests/fixtures. Archives *.tar.xz there are unpacked into `scratch` first.
std::vector<std::string> FindFixtures(const std::string& scratch);

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_DMCREF_H_
