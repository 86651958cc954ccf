#!/usr/bin/env python3
"""One run over three hosts (hosts.py): replay on one, the learner on another, 4 actors and an evaluator
on the third.

Counts must add up as in e2e_test.py, also after the actors' link was cut for some seconds.
"""
import pathlib
import signal
import tempfile
import time

from e2e_test import BIN, CONFIG, SEED, TOTAL, expect, expect_end, programs, stand_still, wait_for
from hosts import Host, inside_its_network

CUT_SECONDS = 5


def main():
    inside_its_network(__file__)
    at_replay, at_learner, at_actors = (Host(f"10.77.0.{number}") for number in (11, 12, 13))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_hosts_"))
    (folder / "run.textproto").write_text(CONFIG)

    def start(host, name, *command):
        programs.append(host.start(folder, name, *command))
        return programs[-1]

    replay_address, learner_address = f"{at_replay.address}:7201", f"{at_learner.address}:7000"
    replay = start(at_replay, "replay", BIN / "pompc-replay", "--listen", replay_address,
                   "--insecure")
    learner = start(at_learner, "learner", BIN / "pompc-learner", "--config", folder / "run.textproto",
                    "--set", "replay.journal=NONE", "--run-dir", folder, "--listen", learner_address,
                    "--replay", replay_address, "--insecure")
    actors = [start(at_actors, f"actor-{i}", BIN / "pompc-actor", "--learner", learner_address)
              for i in range(4)]
    start(at_actors, "evaluator", BIN / "pompc-actor", "--learner", learner_address, "--role", "evaluator")

    wait_for("the run is in the middle",
             lambda: learner.metrics().get("pompc_learner_decisions", 0) > SEED + 300)
    stand_still(learner, actors, replay)
    learner.process.send_signal(signal.SIGCONT)

    at_actors.set_link("down")
    time.sleep(CUT_SECONDS)
    cut = replay.metrics()["pompc_replay_items"]
    at_actors.set_link("up")
    wait_for("rows arrive again", lambda: replay.metrics()["pompc_replay_items"] > cut + 100)
    stored, queued, _, metrics = stand_still(learner, actors, replay)
    expect(metrics["pompc_replay_inserts_total"] == stored, "rows stored are not the rows inserted")
    learner.process.send_signal(signal.SIGCONT)

    expect_end(folder, learner, replay, TOTAL)
    print(f"rows_stored={stored} rows_queued={queued}")


if __name__ == "__main__":
    main()
