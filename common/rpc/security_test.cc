// Certificates are made by the openssl program, as docs/security.md tells users to.
#include "common/rpc/security.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class StatusService : public v1::Learner::Service {
 public:
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::RunStatus*) override {
    return grpc::Status::OK;
  }
};

class SecurityTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "security-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    folder_ = path;
    MakeAuthority("ca");
    MakeCertificate("server", "ca", "DNS:localhost,IP:127.0.0.1");
    MakeCertificate("client", "ca", "DNS:client");
    Write("token", "alpha-2718\n");
  }
  void TearDown() override {
    server_ = nullptr;
    std::filesystem::remove_all(folder_);
  }

  std::string File(const std::string& name) const { return folder_ + "/" + name; }
  void Write(const std::string& name, const std::string& content) {
    ASSERT_TRUE(WriteFileAtomically(File(name), content).ok());
  }
  // Arguments of the openssl program; @ stands for the folder.
  void OpenSsl(std::string arguments) {
    for (size_t at; (at = arguments.find('@')) != std::string::npos;) {
      arguments.replace(at, 1, folder_ + "/");
    }
    const std::string command =
        absl::StrCat("openssl ", arguments, " > ", File("openssl.log"), " 2>&1");
    ASSERT_EQ(std::system(command.c_str()), 0) << command << "\n"
                                               << ReadFile(File("openssl.log")).value_or("");
  }
  void MakeAuthority(const std::string& name) {
    OpenSsl(
        absl::StrCat("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 "
                     "-subj /CN=",
                     name, " -keyout @", name, ".key -out @", name, ".pem"));
  }
  // days < 0: has expired.
  void MakeCertificate(const std::string& name, const std::string& authority,
                       const std::string& names, int days = 10) {
    OpenSsl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name,
                         " -addext subjectAltName=", names, " -keyout @", name, ".key -out @", name,
                         ".csr"));
    OpenSsl(absl::StrCat("x509 -req -copy_extensions copy -in @", name, ".csr -CA @", authority,
                         ".pem -CAkey @", authority, ".key -days ", days, " -out @", name, ".pem"));
  }

  RpcSecurity Mutual(const std::string& name, const std::string& authority = "ca") const {
    RpcSecurity security;
    security.certificate_file = File(name + ".pem");
    security.key_file = File(name + ".key");
    security.ca_file = File(authority + ".pem");
    security.reload_every = absl::Seconds(1);
    return security;
  }
  RpcSecurity WithToken(RpcSecurity security, const std::string& file = "token") const {
    security.token_file = File(file);
    return security;
  }

  void Serve(const RpcSecurity& security, const std::string& address = "127.0.0.1:0") {
    auto server = RpcServer::Start(address, {&service_}, &metrics_, security);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  static absl::Status Call(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::RunStatus answer;
    return FromGrpc(
        v1::Learner::NewStub(channel)->GetStatus(&context, v1::GetStatusRequest(), &answer));
  }
  // What a call on a channel of its own ends with.
  absl::Status Call(const RpcSecurity& security) {
    const auto channel = OpenChannel(server_->address(), security);
    return channel.ok() ? Call(*channel) : channel.status();
  }
  // The outcome of the first call that `decides`. Between calls it waits for the channel to try
  // again.
  template <typename Decides>
  static absl::Status CallUntil(const std::shared_ptr<grpc::Channel>& channel, Decides decides) {
    while (true) {
      absl::Status status = Call(channel);
      if (decides(status)) return status;
      channel->WaitForStateChange(channel->GetState(/*try_to_connect=*/true),
                                  std::chrono::system_clock::now() + std::chrono::seconds(1));
    }
  }
  // The same for one that fails and says why: gRPC's own message stands in brackets behind it.
  absl::Status CallUntilExplained(const RpcSecurity& security) {
    return CallUntil(CreateChannel(server_->address(), security), [](const absl::Status& status) {
      return !absl::IsUnavailable(status) || absl::EndsWith(status.message(), "]");
    });
  }

  std::string folder_;
  StatusService service_;
  MetricsRegistry metrics_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(SecurityTest, MutualTlsWithATokenServes) {
  Serve(WithToken(Mutual("server")));
  EXPECT_TRUE(Call(WithToken(Mutual("client"))).ok());
}

TEST_F(SecurityTest, AServerWithoutAuthorityTakesClientsWithoutCertificate) {
  RpcSecurity server = Mutual("server"), client;
  server.ca_file.clear();
  client.ca_file = File("ca.pem");
  Serve(server);
  EXPECT_TRUE(Call(client).ok());
}

TEST_F(SecurityTest, AUnixSocketTakesNeitherTlsNorToken) {
  Serve(WithToken(Mutual("server")), "unix:" + File("socket"));
  EXPECT_TRUE(Call(RpcSecurity()).ok());
  EXPECT_TRUE(Call(WithToken(Mutual("client"))).ok());
}

TEST_F(SecurityTest, AClientWithoutCertificateIsTold) {
  Serve(Mutual("server"));
  RpcSecurity client;
  client.ca_file = File("ca.pem");
  const absl::Status status = CallUntilExplained(client);
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(server_->address() + " asks for a certificate: give --tls-cert"));
}

TEST_F(SecurityTest, AClientOfAnotherAuthorityIsTold) {
  MakeAuthority("other");
  MakeCertificate("stranger", "other", "DNS:stranger");
  Serve(Mutual("server"));
  const absl::Status status = CallUntilExplained(Mutual("stranger"));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("refuses the certificate in --tls-cert " + File("stranger.pem")));
}

TEST_F(SecurityTest, AServerOfAnotherAuthorityIsNotTrusted) {
  MakeAuthority("other");
  Serve(Mutual("server"));
  const absl::Status status = CallUntilExplained(Mutual("client", "other"));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("is not of an authority in --tls-ca " + File("other.pem")));
}

TEST_F(SecurityTest, AServerForAnotherHostIsNotTrusted) {
  MakeCertificate("elsewhere", "ca", "DNS:elsewhere");
  Serve(Mutual("elsewhere"));
  const absl::Status status = CallUntilExplained(Mutual("client"));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("is not for \"127.0.0.1\""), HasSubstr("IP:127.0.0.1")));
}

TEST_F(SecurityTest, ServersAreCheckedByNameToo) {
  Serve(Mutual("server"));
  const std::string address = absl::StrCat("localhost:", server_->port());
  EXPECT_TRUE(Call(CreateChannel(address, Mutual("client"))).ok());
}

TEST_F(SecurityTest, NobodyStartsWithAnExpiredCertificate) {
  MakeCertificate("old", "ca", "IP:127.0.0.1", /*days=*/-1);
  const absl::Status server =
      RpcServer::Start("127.0.0.1:0", {&service_}, &metrics_, Mutual("old")).status();
  EXPECT_TRUE(absl::IsInvalidArgument(server));
  EXPECT_THAT(std::string(server.message()), HasSubstr(File("old.pem") + " has expired on "));
  EXPECT_EQ(Mutual("old").CheckClient("127.0.0.1:1"), server);
}

TEST_F(SecurityTest, AServerWhoseCertificateExpiresIsNotTrusted) {
  MakeCertificate("old", "ca", "IP:127.0.0.1", /*days=*/-1);
  Serve(Mutual("server"));
  // Replaces the files of the server, which reads them again some time.
  std::filesystem::rename(File("old.key"), File("server.key"));
  std::filesystem::rename(File("old.pem"), File("server.pem"));
  absl::Status status;
  do {  // Connections that exist stay as they are.
    status = CallUntilExplained(Mutual("client"));
  } while (status.ok());
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has expired"));
}

TEST_F(SecurityTest, AClientWhoseCertificateExpiresIsTold) {
  MakeCertificate("old", "ca", "DNS:old", /*days=*/-1);
  Serve(Mutual("server"));
  const absl::Status status = CallUntilExplained(Mutual("old"));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(File("old.pem") + " has expired on "));
}

TEST_F(SecurityTest, ReplacedFilesServeWithoutARestart) {
  Serve(WithToken(Mutual("server")));
  // A new authority, certificates of it, and a new token.
  MakeAuthority("next");
  MakeCertificate("server-next", "next", "IP:127.0.0.1");
  MakeCertificate("client-next", "next", "DNS:client");
  const RpcSecurity client = WithToken(Mutual("client-next", "next"), "token-next");
  Write("token-next", "beta-3141\n");
  EXPECT_TRUE(absl::IsUnavailable(Call(client)));
  for (const char* kind : {".key", ".pem"}) {
    std::filesystem::copy_file(File(absl::StrCat("server-next", kind)),
                               File(absl::StrCat("n", kind)));
    std::filesystem::rename(File(absl::StrCat("n", kind)), File(absl::StrCat("server", kind)));
  }
  std::filesystem::rename(File("next.pem"), File("ca.pem"));
  Write("token", "beta-3141\nalpha-2718\n");  // The old one still serves.
  const RpcSecurity after = WithToken(Mutual("client-next"), "token-next");
  const absl::Status status =
      CallUntil(CreateChannel(server_->address(), after),
                [](const absl::Status& s) { return !absl::IsUnavailable(s); });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SecurityTest, AClientWithoutTlsIsTold) {
  Serve(Mutual("server"));
  const absl::Status status = CallUntilExplained(RpcSecurity());
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(server_->address() + " speaks TLS: give --tls-ca"));
}

TEST_F(SecurityTest, AServerWithoutTlsIsRecognised) {
  Serve(RpcSecurity());
  const absl::Status status = CallUntilExplained(Mutual("client"));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_->address() + " does not speak TLS"));
}

TEST_F(SecurityTest, ADeadServerHasNothingToDoWithCertificates) {
  Serve(Mutual("server"));
  const std::string address = server_->address();
  server_ = nullptr;
  const absl::Status status = Call(CreateChannel(address, Mutual("client")));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Connection refused"));
}

TEST_F(SecurityTest, AMissingOrWrongTokenIsRefused) {
  Write("wrong", "alpha-2719\n");
  for (const bool tls : {false, true}) {
    Serve(WithToken(tls ? Mutual("server") : RpcSecurity()));
    const RpcSecurity client = tls ? Mutual("client") : RpcSecurity();
    const absl::Status missing = Call(client), wrong = Call(WithToken(client, "wrong"));
    EXPECT_TRUE(absl::IsUnauthenticated(missing));
    EXPECT_THAT(std::string(missing.message()), HasSubstr("give --token-file"));
    EXPECT_TRUE(absl::IsUnauthenticated(wrong));
    EXPECT_THAT(std::string(wrong.message()), HasSubstr("has to be a line of the server's"));
    EXPECT_TRUE(IsRefusal(missing) && IsRefusal(wrong));
    EXPECT_TRUE(Call(WithToken(client)).ok());
  }
}

TEST_F(SecurityTest, ListeningBeyondThisMachineNeedsTlsOrConsent) {
  RpcSecurity none, insecure, token = WithToken(RpcSecurity());
  insecure.insecure = token.insecure = true;
  for (const char* address : {"0.0.0.0:7000", "[::]:7000", "10.0.0.1:7000", "learner.lab:7000"}) {
    const absl::Status refused = none.CheckServer(address);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << address;
    EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(address), HasSubstr("--insecure")));
    EXPECT_TRUE(insecure.CheckServer(address).ok());
    EXPECT_TRUE(Mutual("server").CheckServer(address).ok());
    // A token in clear is a token for all.
    EXPECT_TRUE(absl::IsInvalidArgument(token.CheckServer(address)));
    EXPECT_TRUE(absl::IsInvalidArgument(token.CheckClient(address)));
    EXPECT_TRUE(none.CheckClient(address).ok());
  }
  for (const char* address : {"127.0.0.1:0", "127.1.2.3:7", "localhost:7", "[::1]:7", "unix:/x"}) {
    EXPECT_TRUE(none.CheckServer(address).ok()) << address;
    EXPECT_TRUE(token.CheckServer(address).ok()) << address;
    EXPECT_TRUE(token.CheckClient(address).ok()) << address;
  }
}

TEST_F(SecurityTest, RefusesWhatIsNoAddress) {
  for (const char* address : {"learner", "127.0.0.1:65536", "127.0.0.1:", "unix:"}) {
    for (const absl::Status& refused :
         {RpcSecurity().CheckServer(address), RpcSecurity().CheckClient(address),
          OpenChannel(absl::StrCat(address, "#table"), {}).status()}) {
      EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
      EXPECT_THAT(std::string(refused.message()), HasSubstr(address));
    }
  }
  EXPECT_TRUE(OpenChannel("127.0.0.1:7000#table", {}).ok());
}

TEST_F(SecurityTest, BadFilesAreNamed) {
  Write("empty", "\n");
  Write("control", "al\x01pha\n");
  const auto check = [](const RpcSecurity& security) {
    return std::string(security.CheckClient("h:1").message());
  };
  const RpcSecurity good = WithToken(Mutual("client"));
  EXPECT_EQ(check(good), "");
  RpcSecurity bad = good;
  bad.key_file.clear();
  EXPECT_THAT(check(bad), HasSubstr("--tls-key is missing"));
  bad.key_file = File("absent.key");
  EXPECT_THAT(check(bad), AllOf(HasSubstr("--tls-key: "), HasSubstr(bad.key_file)));
  bad.key_file = File("client.pem");
  EXPECT_THAT(check(bad), HasSubstr("client.pem holds no private key"));
  bad.key_file = File("server.key");
  EXPECT_THAT(check(bad), HasSubstr("server.key is not the key of the certificate in"));
  bad = good;
  bad.certificate_file = File("client.key");
  EXPECT_THAT(check(bad),
              HasSubstr("--tls-cert: " + bad.certificate_file + " holds no certificate"));
  bad = good;
  bad.ca_file = File("token");
  EXPECT_THAT(check(bad), HasSubstr("--tls-ca: " + bad.ca_file + " holds no certificate"));
  bad.ca_file.clear();
  EXPECT_THAT(check(bad), HasSubstr("give --tls-ca too"));
  bad = WithToken(good, "empty");
  EXPECT_THAT(check(bad), HasSubstr("--token-file: " + bad.token_file + " holds no token"));
  bad = WithToken(good, "control");
  EXPECT_THAT(check(bad), HasSubstr("no visible ASCII"));
  bad = good;
  bad.certificate_file = bad.key_file = "";
  EXPECT_THAT(std::string(bad.CheckServer("h:1").message()), HasSubstr("give --tls-cert and"));
}

}  // namespace
}  // namespace pompc
