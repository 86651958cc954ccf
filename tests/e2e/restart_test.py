#!/usr/bin/env python3
"""A learner that is started again with the same command whenever it ends, as Kubernetes and Slurm do.

With --resume-if-begun it begins in an empty folder, goes on where there is a checkpoint, and its exit
status tells a run that is complete (0) from one that was stopped (130).
"""
import pathlib
import re
import signal
import tempfile

from e2e_test import BIN, CONFIG, SEED, Program, expect, free_port, programs, wait_for


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_restart_"))
    (folder / "run.textproto").write_text(CONFIG)
    address = f"127.0.0.1:{free_port()}"

    def start_learner(name):
        programs[:] = [p for p in programs if p.process.poll() is None]
        learner = Program(folder, name, BIN / "pompc-learner", "--config", folder / "run.textproto",
                          "--run-dir", folder / "run", "--listen", address, "--resume-if-begun",
                          "--set", "total_decisions=1000")
        programs.append(learner)
        return learner

    def stop(learner):
        learner.process.send_signal(signal.SIGTERM)
        code = learner.process.wait(timeout=60)
        expect(code == 130, f"{learner.name} was stopped and ends with {code}")

    decisions = lambda of: of.metrics().get("pompc_learner_decisions", 0)
    # Nobody has joined: there is nothing to go on from.
    learner = start_learner("first")
    wait_for("it serves", learner.metrics)
    stop(learner)
    learner = start_learner("second")
    actor = Program(folder, "actor", BIN / "pompc-actor", "--learner", address)
    programs.append(actor)
    wait_for("the run is in the middle", lambda: decisions(learner) > SEED + 100)
    run_id = re.search(r"run_id=(\S+)", learner.log.read_text())[1]
    before = decisions(learner)
    stop(learner)
    learner = start_learner("third")
    wait_for("the run is complete", lambda: learner.process.poll() is not None)
    log = learner.log.read_text()
    expect(learner.process.returncode == 0, "a complete run does not end with 0")
    started = re.search(r"run_id=(\S+) .* decisions=(\d+) ", log)
    expect(started[1] == run_id and int(started[2]) >= before, f"resumed {started[0]}, not {run_id}")
    wait_for("the actor leaves", lambda: actor.process.poll() is not None)
    expect(actor.process.returncode == 0, "the actor did not exit cleanly")
    # Once more, as an engine may that missed the end: there is nothing left to do.
    learner = start_learner("fourth")
    wait_for("it ends", lambda: learner.process.poll() is not None)
    expect(learner.process.returncode == 0, "a complete run, started again, does not end with 0")


if __name__ == "__main__":
    main()
