#include "learner/service/event_files.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/crc32c.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "proto/pompc/v1/tensorboard.pb.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

constexpr char kSubfolder[] = "tensorboard";
// A TensorBoard recognises "tfevents" in a name; the number between these puts files in order.
constexpr char kPrefix[] = "events.out.tfevents.", kSuffix[] = ".pompc";

// Integers as they stand in memory, which is little-endian on every machine that this runs on.
template <typename T>
void AppendInteger(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// So that a checksum of data that hold checksums is not trivial.
uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

std::string Framed(const v1::TensorBoardEvent& event) {
  const std::string data = event.SerializeAsString();
  std::string record;
  AppendInteger(&record, uint64_t{data.size()});
  AppendInteger(&record, Masked(Crc32c(record)));
  record += data;
  AppendInteger(&record, Masked(Crc32c(data)));
  return record;
}

v1::TensorBoardEvent Event(int64_t step, absl::Time time) {
  v1::TensorBoardEvent event;
  event.set_step(step);
  event.set_wall_time(absl::ToDoubleSeconds(time - absl::UnixEpoch()));
  return event;
}

}  // namespace

std::string ScalarEvent(int64_t step, absl::Time time,
                        const std::vector<std::pair<std::string, double>>& scalars) {
  v1::TensorBoardEvent event = Event(step, time);
  for (const auto& [tag, value] : scalars) {
    v1::TensorBoardSummary::Value* const scalar = event.mutable_summary()->add_value();
    scalar->set_tag(tag);
    scalar->set_simple_value(static_cast<float>(value));
  }
  return Framed(event);
}

absl::StatusOr<std::pair<std::string, std::unique_ptr<RecordFile>>> OpenNextEventFile(
    const EventFilesOptions& options, std::map<std::string, int64_t>* earlier) {
  const fs::path folder = fs::path(options.folder) / kSubfolder;
  std::error_code error;
  fs::create_directories(folder, error);
  std::vector<std::string> names;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error)) {
    const std::string name = i->path().filename();
    if (absl::StartsWith(name, kPrefix) && absl::EndsWith(name, kSuffix)) names.push_back(name);
  }
  int64_t number = 0;
  for (const std::string& name : names) {
    if (error) break;
    const std::string key = absl::StrCat(kSubfolder, "/", name);
    const auto kept = options.kept_bytes.find(key);
    if (kept == options.kept_bytes.end()) {
      fs::remove(folder / name, error);
      continue;
    }
    const int64_t bytes =
        std::min(kept->second, static_cast<int64_t>(fs::file_size(folder / name, error)));
    if (!error) fs::resize_file(folder / name, bytes, error);
    (*earlier)[key] = bytes;
    int64_t its_number = 0;
    if (absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1, 10), &its_number)) {
      number = std::max(number, its_number + 1);
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot write below ", folder.string(), ": ", error.message()));
  }
  v1::TensorBoardEvent version = Event(0, options.now);
  version.set_file_version("brain.Event:2");
  std::string header = Framed(version);
  if (!earlier->empty()) {
    v1::TensorBoardEvent start = Event(options.kept_step + 1, options.now);
    start.mutable_session_log()->set_status(v1::TensorBoardSession::START);
    header += Framed(start);
  }
  const std::string name = absl::StrFormat("%s/%s%010d%s", kSubfolder, kPrefix, number, kSuffix);
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<RecordFile> file,
                         RecordFile::Open(absl::StrCat(options.folder, "/", name), header, 0));
  POMPC_RETURN_IF_ERROR(SyncFolder(folder));
  return std::make_pair(name, std::move(file));
}

}  // namespace pompc
