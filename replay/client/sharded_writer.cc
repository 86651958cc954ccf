#include "replay/client/sharded_writer.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/log.h"

namespace pompc {
namespace {

// How long a server may take no row before it matters whether it is away.
constexpr absl::Duration kPatience = absl::Milliseconds(100);

}  // namespace

ShardedWriter::ShardedWriter(const RemoteWriterOptions& options,
                             const std::vector<std::shared_ptr<grpc::Channel>>& channels,
                             Clock* clock, MetricsRegistry* metrics)
    : writer_id_(options.writer_id), clock_(clock) {
  POMPC_CHECK(!channels.empty());
  for (const std::shared_ptr<grpc::Channel>& channel : channels) {
    writers_.push_back(std::make_unique<RemoteWriter>(options, channel, clock, metrics));
  }
}

ShardedWriter::Route ShardedWriter::NewRoute(const v1::Segment& segment, size_t shard) {
  for (size_t tried = 0; tried < writers_.size() && writers_[shard]->away(); ++tried) {
    shard = (shard + 1) % writers_.size();
  }
  const Route route = {shard, ++episodes_, segment.first_row()};
  routes_.insert_or_assign(segment.episode_id(), route);
  return route;
}

ShardedWriter::Route ShardedWriter::RouteOf(const v1::Segment& segment) {
  absl::MutexLock lock(&mu_);
  const auto known = routes_.find(segment.episode_id());
  if (known != routes_.end()) return known->second;
  return NewRoute(segment, (writer_id_ + episodes_) % writers_.size());
}

void ShardedWriter::Move(const v1::Segment& segment, const Route& route) {
  absl::MutexLock lock(&mu_);
  const auto there = [](const auto& writer) { return !writer->away(); };
  if (!writers_[route.shard]->away() || std::none_of(writers_.begin(), writers_.end(), there)) {
    return;
  }
  const Route now = NewRoute(segment, route.shard);
  POMPC_LOG(WARNING) << "replay server " << route.shard + 1 << " of " << writers_.size()
                     << " is away, an episode goes on with server " << now.shard + 1
                     << " writer_id=" << writer_id_;
}

absl::Status ShardedWriter::Append(v1::Segment segment, absl::Time deadline) {
  while (true) {
    const Route route = RouteOf(segment);
    v1::Segment routed = segment;  // A copy: a segment that is not taken goes elsewhere.
    routed.set_episode_id(route.episode_id);
    routed.set_first_row(segment.first_row() - route.first_row);
    const absl::Status status = writers_[route.shard]->Append(
        std::move(routed), std::min(deadline, clock_->Now() + kPatience));
    if (status.ok() && segment.ends_episode()) {
      absl::MutexLock lock(&mu_);
      routes_.erase(segment.episode_id());
    }
    if (!absl::IsDeadlineExceeded(status)) return status;
    Move(segment, route);
    if (clock_->Now() >= deadline) return status;
  }
}

absl::Status ShardedWriter::Flush(absl::Time deadline) {
  absl::Status status;
  for (const std::unique_ptr<RemoteWriter>& writer : writers_) {
    status.Update(writer->Flush(deadline));
  }
  return status;
}

}  // namespace pompc
