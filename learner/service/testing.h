// A small run for tests of the learner's service.
#ifndef POMPC_LEARNER_SERVICE_TESTING_H_
#define POMPC_LEARNER_SERVICE_TESTING_H_

#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "learner/service/learner_service.h"
#include "learner/service/run_front.h"

namespace pompc::testing {

// A new, empty folder.
inline std::string NewFolder() {
  std::string name = ::testing::TempDir() + "/learner-XXXXXX";
  POMPC_CHECK(mkdtemp(name.data()) != nullptr);
  return name;
}

inline std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

inline v1::TaskSizes TestSizes() {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(4);
  sizes.set_action_dim(2);
  sizes.set_episode_decisions(20);
  return sizes;
}

// Each a join of its own.
inline v1::JoinRequest JoinAs(v1::Role role) {
  static std::atomic<uint64_t> nonce = 0;
  v1::JoinRequest request;
  request.set_nonce(++nonce);
  request.set_role(role);
  *request.mutable_sizes() = TestSizes();
  return request;
}

inline v1::Episode TestEpisode(v1::Role role, double value, int64_t version = 3) {
  v1::Episode episode;
  episode.set_role(role);
  episode.set_actor_index(1);
  episode.set_parameter_version(version);
  episode.set_decisions_at(100);
  episode.set_decisions(20);
  episode.set_env_steps(40);
  episode.set_return_(value);
  return episode;
}

inline v1::ReportEpisodesRequest Report(uint64_t reporter, uint64_t sequence,
                                        const std::vector<v1::Episode>& episodes) {
  v1::ReportEpisodesRequest request;
  request.set_reporter_id(reporter);
  request.set_sequence(sequence);
  for (const v1::Episode& episode : episodes) *request.add_episodes() = episode;
  return request;
}

// A RunFront behind a server without a socket. Evaluations have 2 episodes.
class TestFront {
 public:
  TestFront() {
    RunFrontOptions options;
    v1::RunConfig& config = *options.identity.mutable_config();
    config.mutable_environment()->set_action_repeat(2);
    config.mutable_evaluation()->set_episodes(2);
    options.identity.set_run_id("test-run");
    options.run_dir = folder_;
    options.stat_names = {"loss"};
    auto front = RunFront::Create(options, RealClock(), &metrics_);
    POMPC_CHECK_OK(front.status());
    front_ = *std::move(front);
    front_->episodes.Open();
    service_ = std::make_unique<LearnerService>(front_.get());
    server_ = grpc::ServerBuilder().RegisterService(service_.get()).BuildAndStart();
    channel_ = server_->InProcessChannel(grpc::ChannelArguments());
  }
  ~TestFront() {
    front_->publisher.Close();
    server_->Shutdown();
  }

  RunFront* operator->() { return front_.get(); }
  std::unique_ptr<v1::Learner::Stub> NewStub() { return v1::Learner::NewStub(channel_); }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  const std::string& folder() const { return folder_; }
  MetricsRegistry* metrics() { return &metrics_; }

 private:
  const std::string folder_ = NewFolder();
  MetricsRegistry metrics_;
  std::unique_ptr<RunFront> front_;
  std::unique_ptr<LearnerService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace pompc::testing

#endif  // POMPC_LEARNER_SERVICE_TESTING_H_
