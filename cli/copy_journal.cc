#include "cli/copy_journal.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "proto/pompc/v1/replay.grpc.pb.h"

namespace pompc {

absl::StatusOr<std::string> CopyJournal(const std::string& address, const std::string& name,
                                        const RpcSecurity& security) {
  POMPC_ASSIGN_OR_RETURN(const auto channel, OpenChannel(address, security));
  const auto stub = v1::Replay::NewStub(channel);
  // Not repeated: the first attempt may have made the copy.
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
  v1::CheckpointRequest request;
  request.set_name(name);
  v1::CheckpointResponse response;
  POMPC_RETURN_IF_ERROR(FromGrpc(stub->Checkpoint(&context, request, &response)));
  return absl::StrCat("Copied to ", response.folder(),
                      "\nTo go back to it, stop the run and put it in the journal's place.\n");
}

}  // namespace pompc
