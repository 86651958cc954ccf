#!/usr/bin/env python3
"""Enforces the room table: which folder may include and link what (docs/architecture.md).

Usage: layering_test.py [ROOT]. Without ROOT it first shows, on a made-up tree, that it finds
forbidden includes and links, then checks this repository.
"""
import pathlib
import re
import sys
import tempfile

BASE, METRICS, CONFIG, RPC = "common/base", "common/metrics", "common/config", "common/rpc"
MODEL, PLANNER, PROTO = "common/model", "common/planner", "proto/pompc/v1"
COMMON = [BASE, METRICS, CONFIG, RPC, MODEL, PLANNER, PROTO]
# Room: (rooms it may include besides itself, third parties it may include and link).
ROOMS = {
    BASE: ([], []),
    METRICS: ([BASE], ["prometheus"]),
    CONFIG: ([BASE, PROTO], []),
    RPC: ([BASE, METRICS, PROTO], ["grpc", "openssl"]),
    MODEL: ([BASE, PROTO], ["torch"]),
    PLANNER: ([BASE, MODEL, PROTO], ["torch"]),
    "replay/server": ([BASE, METRICS, RPC, PROTO], ["grpc", "rocksdb"]),
    # Samples the table of its own process without a socket, hence the server.
    "replay/client": ([BASE, METRICS, RPC, PROTO, "replay/server"], ["grpc"]),
    "learner/core": (COMMON + ["replay/client"], ["torch", "nccl"]),
    # Shares the layout of a row with the actors, hence the client.
    "learner/service": (COMMON + ["replay/client", "learner/core", "learner/client"],
                        ["torch", "grpc"]),
    "learner/client": (COMMON, ["grpc"]),
    # Of the service only what needs no LibTorch: the publisher.
    "learner/relay": ([BASE, METRICS, CONFIG, RPC, PROTO, "learner/client", "learner/service"],
                      ["grpc"]),
    "actor/env": (COMMON, ["mujoco"]),
    "actor/physics": (COMMON + ["actor/env"], ["mujoco", "torch"]),
    "actor/render": ([BASE, "actor/env"], ["mujoco"]),
    "actor/loop": (COMMON + ["actor/env", "actor/physics", "actor/render", "replay/client",
                             "learner/client"], ["torch", "grpc"]),
    # The programs, main.cc of each, wire concrete types; cli starts and shows them.
    "replay": ([BASE, METRICS, CONFIG, RPC, PROTO, "replay/server"], ["grpc"]),
    "learner": (COMMON + ["replay/client", "replay/server", "learner/core", "learner/service",
                          "learner/client"], ["torch", "grpc"]),
    "actor": (COMMON + ["replay/client", "learner/client", "actor/env", "actor/physics",
                        "actor/loop"], ["torch", "grpc"]),
}
UNRESTRICTED = ["cli", "bench", "tests"]
CODE = {".h", ".cc", ".inc", ".cu", ".cuh"}
INCLUDES = {"torch": r"(torch|ATen|c10)/", "mujoco": r"mujoco/", "grpc": r"grpc(pp)?/|.*\.grpc\.pb\.h",
            "nccl": r"nccl\.h", "openssl": r"openssl/", "prometheus": r"prometheus/",
            "rocksdb": r"rocksdb/"}
LINKS = {"torch": r"\bTORCH\b|pompc_torch\b", "mujoco": r"\bpompc_mujoco\b|\bmujoco_library\b",
         "grpc": r"gRPC::|\bproto_grpc\b", "nccl": r"\bnccl\b", "openssl": r"OpenSSL::",
         "prometheus": r"prometheus-cpp", "rocksdb": r"(?i)\brocksdb\b"}


def room_of(path):
    """The room of a file or folder, the innermost of the table; None if it has none."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        if (room := "/".join(parts[:length])) in ROOMS or room in UNRESTRICTED:
            return room
    return None


def check(root):
    """One line for each mistake in the tree."""
    mistakes = []
    tops = sorted({room.split("/")[0] for room in ROOMS} - {"proto"})
    files = [p for top in tops for p in sorted((root / top).rglob("*")) if p.is_file()]
    for file in files:
        name = file.relative_to(root).as_posix()
        is_cmake = file.name == "CMakeLists.txt" or file.suffix == ".cmake"
        if not is_cmake and file.suffix not in CODE:
            continue
        room = room_of(name)
        if room is None or (room in ("replay", "learner", "actor") and name.count("/") > 1):
            if not is_cmake:
                mistakes.append(f"{name}: is in no room of the table in tests/layering")
            continue
        rooms, third_parties = ROOMS[room]
        patterns = LINKS if is_cmake else INCLUDES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if is_cmake:
                text, match = line.split("#")[0], re.search
            elif found := re.match(r'\s*#\s*include\s*[<"]([^>"]+)', line):
                text, match = found[1], re.match
                other = room_of(text) or (text.startswith(PROTO) and PROTO)
                if other and other != room and other not in rooms:
                    mistakes.append(f"{name}:{number}: {room} may not include {text}")
            else:
                continue
            for third_party, pattern in patterns.items():
                if third_party not in third_parties and match(pattern, text):
                    verb = "link" if is_cmake else "include"
                    mistakes.append(f"{name}:{number}: {room} may not {verb} {third_party}")
    return mistakes


def self_test():
    forbidden = {
        "replay/server/a.cc": '#include <torch/torch.h>',
        "replay/server/b.h": '#include "replay/client/sampler.h"',
        "common/base/c.h": '#  include "common/rpc/server.h"',
        "learner/client/d.cc": '#include "ATen/ATen.h"',
        "actor/loop/e.cc": '#include "mujoco/mujoco.h"',
        "actor/loop/f.cc": '#include "learner/core/losses.h"',
        "learner/core/g.cc": '#include "proto/pompc/v1/learner.grpc.pb.h"',
        "replay/server/CMakeLists.txt": "pompc_library(replay_server SOURCES a.cc DEPS base TORCH)",
        "learner/core/CMakeLists.txt": "pompc_library(x DEPS gRPC::grpc++)",
        "common/util/h.cc": "",
        "replay/main.cc": '#include "common/model/world_model.h"',
        "learner/relay/i.cc": '#include "replay/client/sampler.h"',
    }
    allowed = {
        "replay/server/ok.cc": '#include "common/rpc/server.h"\n#include "replay/server/table.h"\n'
                               '// #include "torch/torch.h"\n#include <vector>',
        "learner/main.cc": '#include "replay/server/table.h"\n#include "learner/service/x.h"',
        "cli/main.cc": '#include "mujoco/mujoco.h"',
        "replay/client/CMakeLists.txt": "# TORCH is not for us\npompc_library(y DEPS proto_grpc)",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**forbidden, **allowed}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = {mistake.split(":")[0] for mistake in check(root)}
    if found != set(forbidden):
        sys.exit(f"layering_test does not work: missed {sorted(set(forbidden) - found)}, "
                 f"refused {sorted(found - set(forbidden))}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        self_test()
    here = pathlib.Path(__file__).resolve().parents[2]
    mistakes = check(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here)
    print("\n".join(mistakes) or "layering: every room keeps to the table")
    sys.exit(1 if mistakes else 0)
