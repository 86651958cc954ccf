#!/usr/bin/env python3
"""Two runs of different sizes that share one replay server, each with a table of its own.

The server is killed in the middle; when another one has taken up its journals both runs go on with
their own rows and finish.
"""
import pathlib
import signal
import tempfile

from e2e_test import BIN, CONFIG, Program, expect, free_port, programs, wait_for

TOTAL = 900
RUNS = {"small": "learning.window=3", "long": "learning.window=5"}


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_tables_"))
    (folder / "run.textproto").write_text(CONFIG)
    address = f"127.0.0.1:{free_port()}"
    start_replay = [BIN / "pompc-replay", "--listen", address, "--journal", folder / "journal"]
    replay = Program(folder, "replay", *start_replay)
    programs.append(replay)
    learners = {}
    for name, setting in RUNS.items():
        (folder / name).mkdir()
        learner_address = f"127.0.0.1:{free_port()}"
        learners[name] = Program(
            folder, f"learner-{name}", BIN / "pompc-learner", "--config", folder / "run.textproto",
            "--set", setting, "--set", f"total_decisions={TOTAL}", "--run-dir", folder / name,
            "--listen", learner_address, "--replay", f"{address}#{name}")
        programs.extend([learners[name], Program(folder, f"actor-{name}", BIN / "pompc-actor",
                                                 "--learner", learner_address)])

    def decisions(name):
        return learners[name].metrics().get("pompc_learner_decisions", 0)

    for name in RUNS:
        wait_for(f"{name} is in the middle", lambda name=name: decisions(name) > 400)
    stored = replay.metrics()["pompc_replay_items"]
    replay.process.kill()
    replay.process.wait()
    replay = programs[0] = Program(folder, "replay-again", *start_replay)
    wait_for("replay is back", lambda: "pompc_replay_items" in replay.metrics())
    wait_for("both tables are restored", lambda: replay.metrics()["pompc_replay_items"] >= stored)

    for name, learner in learners.items():
        wait_for(f"{name} finishes", lambda learner=learner: learner.process.poll() is not None)
    for p in programs[1:]:
        wait_for(f"{p.name} exits", lambda p=p: p.process.poll() is not None)
        expect(p.process.returncode == 0, f"{p.name} did not exit cleanly")
    for name in RUNS:
        expect(f"\nupdates: {TOTAL}\n" in (folder / name / "status.textproto").read_text(),
               f"{name} did not make {TOTAL} updates")
    rows = replay.metrics()["pompc_replay_items"]
    expect(rows >= len(RUNS) * TOTAL, f"{rows} rows for {len(RUNS)} runs of {TOTAL} decisions")
    replay.process.send_signal(signal.SIGTERM)
    wait_for("replay exits", lambda: replay.process.poll() is not None)
    expect(replay.process.returncode == 0, "replay did not exit cleanly")


if __name__ == "__main__":
    main()
