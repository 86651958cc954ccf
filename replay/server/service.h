// The Replay service of replay.proto over the tables of a server. Which of them a call is for says
// its metadata (CalledPart(), common/rpc/channel.h).
//
// Callback API: a stream has an object and no thread. Each stream holds at most one segment or one
// batch, so memory is bounded by the number of peers; a stream whose request waits for the rate
// limiter reads nothing further. A peer may vanish at any moment: what waits for it is forgotten.
//
// Thread-safety: thread-safe.
#ifndef POMPC_REPLAY_SERVER_SERVICE_H_
#define POMPC_REPLAY_SERVER_SERVICE_H_

#include "common/metrics/metrics.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/server/tables.h"

namespace pompc {

// Every call but those that draw takes parsed messages; these write their messages themselves.
using ReplayServiceBase = v1::Replay::WithCallbackMethod_Configure<
    v1::Replay::WithCallbackMethod_Append<v1::Replay::WithRawCallbackMethod_Sample<
        v1::Replay::WithRawCallbackMethod_Draw<v1::Replay::WithRawCallbackMethod_Peek<
            v1::Replay::WithCallbackMethod_Update<v1::Replay::WithCallbackMethod_Checkpoint<
                v1::Replay::WithCallbackMethod_Info<v1::Replay::Service>>>>>>>>;

class ReplayService final : public ReplayServiceBase {
 public:
  // `tables` and `metrics` must outlive the server that this service is registered with. To shut
  // down, close `tables` first, then shut the server down with a deadline.
  ReplayService(ReplayTables* tables, MetricsRegistry* metrics)
      : tables_(tables), writers_(metrics->GetGauge("pompc_replay_writers")) {}

 private:
  grpc::ServerUnaryReactor* Configure(grpc::CallbackServerContext* context,
                                      const v1::ConfigureRequest* request,
                                      v1::ConfigureResponse* response) override;
  grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* Append(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Sample(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Draw(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Peek(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Update(grpc::CallbackServerContext* context,
                                   const v1::UpdateRequest* request,
                                   v1::UpdateResponse* response) override;
  grpc::ServerUnaryReactor* Checkpoint(grpc::CallbackServerContext* context,
                                       const v1::CheckpointRequest* request,
                                       v1::CheckpointResponse* response) override;
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context,
                                 const v1::InfoRequest* request,
                                 v1::InfoResponse* response) override;

  ReplayTables* const tables_;
  Gauge* const writers_;  // Append streams open.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_SERVICE_H_
