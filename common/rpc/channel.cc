#include "common/rpc/channel.h"

#include <utility>
#include <vector>

#include "common/base/address.h"
#include "common/base/status_macros.h"
#include "common/rpc/diagnosis.h"
#include "common/rpc/keep_alive.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/client_interceptor.h"

namespace pompc {
namespace {

using grpc::experimental::ClientInterceptorFactoryInterface;
using grpc::experimental::ClientRpcInfo;
using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;

constexpr char kPartKey[] = "pompc-part";

// Names the part of the server in the metadata of every call.
class PartNamer final : public Interceptor, public ClientInterceptorFactoryInterface {
 public:
  explicit PartNamer(std::string part) : part_(std::move(part)) {}

  Interceptor* CreateClientInterceptor(ClientRpcInfo* /*info*/) override {
    return new PartNamer(part_);
  }
  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace(kPartKey, part_);
    }
    methods->Proceed();
  }

 private:
  const std::string part_;
};

}  // namespace

absl::string_view CalledPart(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find(kPartKey);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

std::shared_ptr<grpc::Channel> CreateChannel(const std::string& address,
                                             const RpcSecurity& security) {
  KeepGrpcAlive();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // No limit.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   2'000);  // For one attempt, handshake included.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const size_t part = address.find('#');
  const std::string server = address.substr(0, part);
  std::vector<std::unique_ptr<ClientInterceptorFactoryInterface>> interceptors;
  if (part != std::string::npos) {
    interceptors.push_back(std::make_unique<PartNamer>(address.substr(part + 1)));
  }
  if (!SplitAddress(server).host.empty()) {
    interceptors.push_back(MakeDiagnosingInterceptor(server, security));
  }
  return grpc::experimental::CreateCustomChannelWithInterceptors(
      server, MakeChannelCredentials(security, server), arguments, std::move(interceptors));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const RpcSecurity& security) {
  POMPC_RETURN_IF_ERROR(security.CheckClient(address.substr(0, address.find('#'))));
  return CreateChannel(address, security);
}

}  // namespace pompc
