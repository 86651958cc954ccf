// Command lines, read alike by all programs. For main.cc files alone: programs have CLI11 and
// POMPC_VERSION (cmake/Rooms.cmake).
#ifndef POMPC_COMMON_BASE_COMMAND_LINE_H_
#define POMPC_COMMON_BASE_COMMAND_LINE_H_

#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/base/exit_status.h"

namespace pompc {

// Reads the command line of the program that `app` has the name of, and adds --version to it. The
// exit status if there is nothing left to do: 0 after --help and --version, which are answered on
// stdout, kWrongCommandLine after a mistake, which is told on stderr.
inline std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv) {
  app->set_version_flag("--version", app->get_name() + " " POMPC_VERSION);
  try {
    app->parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    // What is misspelt is told, rather than that it is missing.
    const std::vector<std::string> unknown = app->remaining_for_passthrough(/*recurse=*/true);
    if (unknown.empty()) {
      app->exit(e);
    } else {
      app->exit(CLI::ExtrasError(unknown));
    }
    return kWrongCommandLine;
  } catch (const CLI::ParseError& e) {
    return app->exit(e) == 0 ? 0 : kWrongCommandLine;
  }
  return std::nullopt;
}

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_COMMAND_LINE_H_
