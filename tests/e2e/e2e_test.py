#!/usr/bin/env python3
"""One run through the real programs: 1 replay, 1 learner, 1 relay, 4 actors (two of them behind the
relay), 1 reanalyze worker, 1 evaluator (behind the relay too) on loopback.

All programs together serve all metrics of the table. What they say must add up: rows decided = rows stored + rows in the actors' hands, updates per
decision inside their band, parameters arrive; then everything exits cleanly, and the checkpoint can
be evaluated. The learner is stopped for a moment in the middle (SIGSTOP), so that the rate limiter
holds the actors and all counts stand still while they are compared. After that replay is killed; when
another one has taken up its journal the counts must add up as before.
"""
import csv
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import waiting

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
DEADLINE = time.monotonic() + float(os.environ.get("E2E_SECONDS", 240))

TOTAL, SEED, TOLERANCE = 3000, 300, 60
CONFIG = f"""
preset: "e2e" total_decisions: {TOTAL}
environment {{ task: "cartpole-swingup" episode_steps: 100 }}
model {{ latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }}
planner {{ num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }}
learning {{ batch_size: 16 seed_decisions: {SEED} seed_episodes: 1 reanalyze_windows: 2 }}
replay {{ capacity_rows: 10000 rate_tolerance_updates: {TOLERANCE} }}
actor {{ num_actors: 2 segment_rows: 1 }}
evaluation {{ every_decisions: 500 episodes: 2 }}
"""


kept_ports = []


def free_port():
    """A TCP port for a program of the test's: kept, as cli/kept_port.h does, so that no other program
    is given it before that one listens or while it is started again."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    kept_ports.append(kept)
    return kept.getsockname()[1]


def table():
    """{metric: type} of the project's table."""
    reference = pathlib.Path("docs/metrics.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", reference, re.MULTILINE))


class Program:
    # address: of the host it runs on; enter: the command that runs another command there.
    def __init__(self, folder, name, *args, address="127.0.0.1", enter=(), environment=()):
        self.name, self.log = name, folder / f"{name}.log"
        self.metrics_address = f"{address}:{free_port()}"
        self.process = subprocess.Popen(
            [*enter, *map(str, args), "--metrics-listen", self.metrics_address],
            stdout=self.log.open("w"), stderr=subprocess.STDOUT, env={**os.environ, **dict(environment)})

    def families(self):
        """{metric: type} of what it serves."""
        text = urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=5).read().decode()
        return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))

    def metrics(self):
        """{'name{labels}': value}, or {} while nobody listens."""
        try:
            url = f"http://{self.metrics_address}/metrics"
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:
            return {}
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


programs = []


def stand_still(learner, actors, replay):
    """Stops the learner. Returns rows decided, queued and stored, finished episodes, replay's metrics."""
    learner.process.send_signal(signal.SIGSTOP)
    last = None
    while True:
        now = [p.metrics() for p in (*actors, replay)]
        counts = [(m["pompc_actor_decisions_total"], m["pompc_actor_episodes_total"],
                   m["pompc_actor_upload_queue_rows"]) for m in now[:-1]]
        counts.append(now[-1]["pompc_replay_items"])  # Ever: the table does not get full.
        if counts == last:
            break
        last = counts
        expect(time.monotonic() < DEADLINE, "the actors go on although the learner stands still")
        time.sleep(1)
    decided = sum(decisions + episodes for decisions, episodes, _ in counts[:-1])
    queued = sum(queue for _, _, queue in counts[:-1])
    stored = counts[-1]
    # An actor that replay holds back has at most one row in hand that is not queued yet.
    expect(0 <= decided - stored - queued <= len(actors),
           f"{decided} rows decided, {stored} stored, {queued} queued")
    return stored, queued, sum(episodes for _, episodes, _ in counts[:-1]), now[-1]


def fail(message):
    print("FAILED:", message)
    for p in programs:
        print(f"--- {p.name}, exit code {p.process.poll()}\n{p.log.read_text()[-3000:]}")
        p.process.kill()
    sys.exit(1)


def expect(condition, message):
    if not condition:
        fail(message)


def none_has_failed(told):
    for p in programs:
        expect(p.process.poll() in (None, 0), f"{p.name} died while waiting for: {told}")


def wait_for(what, condition):
    return waiting.wait_for(what, condition, DEADLINE, expect, none_has_failed)


def expect_end(folder, learner, replay, total):
    """Waits until the run has made `total` updates and all programs, replay the first of them, have
    left in order."""
    wait_for("the run finishes", lambda: learner.process.poll() is not None)
    for p in programs[1:]:
        wait_for(f"{p.name} exits", lambda p=p: p.process.poll() is not None)
    replay.process.send_signal(signal.SIGTERM)
    wait_for("replay exits", lambda: replay.process.poll() is not None)
    for p in programs:
        expect(p.process.returncode == 0, f"{p.name} did not exit cleanly")
    status = (folder / "status.textproto").read_text()
    updates = int(re.search(r"^updates: (\d+)", status, re.MULTILINE)[1])
    expect(updates == total, f"{updates} updates for {total} decisions")


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_e2e_"))
    (folder / "run.textproto").write_text(CONFIG)
    replay_address, learner_address, relay_address = (f"127.0.0.1:{free_port()}" for _ in range(3))
    start_replay = [BIN / "pompc-replay", "--listen", replay_address, "--journal", folder / "journal"]
    replay = Program(folder, "replay", *start_replay)
    programs.append(replay)
    learner = Program(folder, "learner", BIN / "pompc-learner", "--config", folder / "run.textproto",
                      "--run-dir", folder, "--listen", learner_address, "--replay", replay_address)
    programs.append(learner)
    relay = Program(folder, "relay", BIN / "pompc-relay", "--upstream", learner_address,
                    "--listen", relay_address)
    programs.append(relay)
    actors = [Program(folder, f"actor-{i}", BIN / "pompc-actor", "--learner", address, "--index", i)
              for i, address in enumerate(2 * [learner_address, relay_address])]
    programs.extend(actors)
    worker = Program(folder, "reanalyze", BIN / "pompc-actor", "--learner", learner_address,
                     "--role", "reanalyze")
    programs.append(worker)
    programs.append(Program(folder, "evaluator", BIN / "pompc-actor", "--learner", relay_address,
                            "--role", "evaluator"))

    wait_for("the run is in the middle",
             lambda: learner.metrics().get("pompc_learner_decisions", 0) > SEED + 300)
    for actor in actors:
        wait_for(f"{actor.name} has trained parameters",
                 lambda actor=actor: actor.metrics().get("pompc_actor_params_version", 0) > 0)

    wait_for("the learner serves two actors, the worker and the relay",
             lambda: learner.metrics().get("pompc_learner_subscribers") == 4)
    wait_for("the worker re-plans",
             lambda: worker.metrics().get("pompc_actor_reanalyzed_rows_total", 0) > 0)
    wait_for("the relay serves two actors and the evaluator",
             lambda: relay.metrics().get("pompc_relay_subscribers") == 3)

    served = {}
    for program in programs:
        served.update(program.families())
    expect(served == table(), f"served, or in the table, alone: {served.items() ^ table().items()}")

    stored, queued, episodes, metrics = stand_still(learner, actors, replay)
    expect(metrics["pompc_replay_inserts_total"] == stored, "rows stored are not the rows inserted")
    expect(metrics["pompc_replay_duplicate_segments_total"] == 0, "segments were sent twice")
    batches = metrics["pompc_replay_batches_total"]
    lead = batches - SEED - (stored - episodes - SEED)
    # Beyond the band: one segment of each environment in flight, and the episodes' last rows.
    expect(abs(lead) <= TOLERANCE + 16, f"{batches} updates, {stored} rows, {episodes} episodes: lead {lead}")
    learner.process.send_signal(signal.SIGCONT)

    wait_for("replay works again", lambda: replay.metrics().get("pompc_replay_items", 0) > stored + 100)
    copied = subprocess.run([BIN / "pompc", "copy-journal", "--replay", replay_address, "--name", "copy"],
                            capture_output=True, text=True, timeout=60)
    expect(copied.returncode == 0 and (folder / "journal.checkpoints/copy/CURRENT").exists(),
           f"pompc copy-journal: {copied.stdout}{copied.stderr}")
    stored = replay.metrics()["pompc_replay_items"]
    replay.process.kill()
    replay.process.wait()
    replay = programs[0] = Program(folder, "replay-again", *start_replay)
    wait_for("replay is back", lambda: "pompc_replay_items" in replay.metrics())
    restored = replay.metrics()["pompc_replay_items"]
    expect(restored >= stored, f"{restored} rows restored of {stored}")
    wait_for("rows arrive", lambda: replay.metrics()["pompc_replay_items"] > restored + 100)
    replanned = worker.metrics()["pompc_actor_reanalyzed_rows_total"]
    wait_for("the worker goes on",
             lambda: worker.metrics()["pompc_actor_reanalyzed_rows_total"] > replanned)
    stored, queued, _, _ = stand_still(learner, actors, replay)
    learner.process.send_signal(signal.SIGCONT)

    expect_end(folder, learner, replay, TOTAL)
    evaluations = list(csv.DictReader((folder / "evaluations.csv").open()))
    expect(len(evaluations) >= 2, f"{len(evaluations)} evaluations")
    expect(int(evaluations[-1]["decisions"]) >= TOTAL, "the final parameters were not evaluated")
    losses = list(csv.DictReader((folder / "losses.csv").open()))
    expect(losses and all(float(v) == float(v) for row in losses for v in row.values()),
           "losses.csv is empty or holds NaN")
    result = subprocess.run([BIN / "pompc", "eval", "--checkpoint", folder / "checkpoint.safetensors"],
                            capture_output=True, text=True, timeout=60)
    expect(result.returncode == 0 and "mean return" in result.stdout,
           f"pompc eval: {result.stdout}{result.stderr}")
    print(json.dumps({"rows_stored": stored, "rows_queued": queued, "lead_updates": lead,
                      "evaluations": len(evaluations)}))


if __name__ == "__main__":
    main()
