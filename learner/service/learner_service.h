// The Learner service of learner.proto over a RunFront.
//
// Every request is checked; what is wrong is answered with the field's path and what would be
// right. Thread-safety: thread-safe. Calls do not block; they run on gRPC's callback threads.
#ifndef POMPC_LEARNER_SERVICE_LEARNER_SERVICE_H_
#define POMPC_LEARNER_SERVICE_LEARNER_SERVICE_H_

#include "learner/service/run_front.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {

// Every call but Subscribe takes parsed messages; that one shares serialised parameters.
using LearnerServiceBase =
    v1::Learner::WithCallbackMethod_GetConfig<v1::Learner::WithCallbackMethod_Join<
        v1::Learner::WithRawCallbackMethod_Subscribe<v1::Learner::WithCallbackMethod_ReportEpisodes<
            v1::Learner::WithCallbackMethod_GetStatus<v1::Learner::Service>>>>>;

class LearnerService final : public LearnerServiceBase {
 public:
  // `front` must outlive the server that this service is registered with. To shut down, close the
  // publisher first.
  explicit LearnerService(RunFront* front) : front_(front) {}

 private:
  grpc::ServerUnaryReactor* GetConfig(grpc::CallbackServerContext* context,
                                      const v1::GetConfigRequest* request,
                                      v1::GetConfigResponse* response) override;
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const v1::JoinRequest* request,
                                 v1::JoinResponse* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Subscribe(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ReportEpisodes(grpc::CallbackServerContext* context,
                                           const v1::ReportEpisodesRequest* request,
                                           v1::ReportEpisodesResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::RunStatus* response) override;

  RunFront* const front_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_LEARNER_SERVICE_H_
