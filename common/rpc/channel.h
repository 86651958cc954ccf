// Channels to our servers.
//
// Addresses, here and in server.h: those of common/base/address.h. What follows a "#" in a client's
// address names the part of the server that it calls: a replay table.
#ifndef POMPC_COMMON_RPC_CHANNEL_H_
#define POMPC_COMMON_RPC_CHANNEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rpc/security.h"
#include "grpcpp/channel.h"
#include "grpcpp/server_context.h"

namespace pompc {

// Largest message of either direction; parameters and batches go in one.
inline constexpr int kMaxMessageBytes = 256 << 20;

// A channel with a connection of its own, that connects on first use, notices a dead peer within 30
// s and tries again after 0.1 to 2 s. security: has passed CheckClient(address); the default is for
// this machine and networks that are trusted. Never null. Thread-safe. Calls fail at once with
// UNAVAILABLE while there is no connection; the message says what is wrong with certificates
// (diagnosis.h).
std::shared_ptr<grpc::Channel> CreateChannel(const std::string& address,
                                             const RpcSecurity& security = {});

// The channel, or why security.CheckClient(address) refuses to have one.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const RpcSecurity& security);

// What follows "#" in the address of the channel that a call came through; empty if nothing does.
// Valid as long as the context.
absl::string_view CalledPart(const grpc::CallbackServerContext& context);

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_CHANNEL_H_
