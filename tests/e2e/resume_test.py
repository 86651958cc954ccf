#!/usr/bin/env python3
"""One run of `pompc train` that is interrupted twice and still comes to its end.

Ctrl-C in the middle, then `--resume`; in the resumed run the learner, and with it the replay table,
dies by SIGKILL. No row may be lost, the actors must stay through that, the records hold every row
once and in order, in all their forms, and the summary must tell what happened. Meanwhile a second process is refused the
run's folder, and in between another config.
"""
import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

import run_records
from train_run import checks

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
DEADLINE = time.monotonic() + float(os.environ.get("E2E_SECONDS", 240))

TOTAL, SEED = 2400, 100
CONFIG = f"""
preset: "resume" total_decisions: {TOTAL}
environment {{ task: "cartpole-swingup" episode_steps: 60 }}
model {{ latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }}
planner {{ num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }}
learning {{ batch_size: 16 seed_decisions: {SEED} seed_episodes: 1 reanalyze_windows: 2 }}
replay {{ capacity_rows: 10000 rate_tolerance_updates: 60 }}
actor {{ num_actors: 2 segment_rows: 7 }}
learner {{ log_every: 20 checkpoint_every_seconds: 1 }}
evaluation {{ every_decisions: 600 episodes: 2 }}
"""
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_resume_"))
run = folder / "run"
train = None
fail, expect, wait_for = checks(DEADLINE, lambda: train, lambda: [*folder.glob("*.out"), *run.glob("logs/*.log")])


def start(name, *args):
    out = folder / f"{name}.out"
    return subprocess.Popen([BIN / "pompc", "train", *map(str, args)], stdout=out.open("w"),
                            stderr=subprocess.STDOUT), out


def end(out, code):
    try:
        train.wait(timeout=max(1, DEADLINE - time.monotonic()))
    except subprocess.TimeoutExpired:
        fail("pompc train does not end")
    expect(train.returncode == code, f"exit code {train.returncode}, not {code}")
    return out.read_text()


def learner_metric(name):
    """Of the present learner process; None while nobody answers."""
    try:
        targets = json.loads((run / "metrics_targets.json").read_text())
        target = next(t for t in targets if t["labels"]["process"] == "learner")["targets"][0]
        text = urllib.request.urlopen(f"http://{target}/metrics", timeout=2).read().decode()
    except (OSError, ValueError):
        return None
    # While a checkpoint and a journal are read there are few metrics yet.
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return found and float(found[1])


def wait_for_decisions(at_least):
    """Returns what the learner counts then; on the way it never counts back."""
    last = 0

    def reached():
        nonlocal last
        now = learner_metric("pompc_learner_decisions") or 0
        expect(now == 0 or now >= last, f"{now} decisions after {last}")
        last = max(last, now)
        return now >= at_least and now
    return wait_for(f"{at_least} decisions", reached)


def learner_pid():
    """None while a learner that starts writes who it is."""
    found = re.match(r"pid (\d+) on ", (run / "learner.lock").read_text())
    return found and int(found[1])


def summary_decisions(text):
    return int(re.search(r"after [\d:]+: ([\d,]+) decisions", text)[1].replace(",", ""))


def rows(name, of=None):
    return list(csv.DictReader(((of or run) / name).open()))


def refuse_another_config():
    """At once, and the run's own config stays."""
    kept = (run / "config.textproto").read_text()
    train, out = start("refused", "--resume", run, "--set", "learning.batch_size=8", "--seed", 5,
                       "--task", "walker-walk")
    code, text = train.wait(timeout=60), out.read_text()
    expect(code == 2 and all(f"{field}: " in text for field in ("learning.batch_size", "seed", "environment.task"))
           and "ended" not in text, f"--resume with another config: {code} {text}")
    expect((run / "config.textproto").read_text() == kept, "a refused --resume has changed the run's config")


def continue_a_run_of_one_process():
    """What `pompc train --in-process` leaves, all the processes take up; no record is lost."""
    alone = folder / "alone"
    kept = {}
    for total, flags in ((400, ["--in-process", "--config", folder / "run.textproto", "--run-dir", alone,
                                "--set", "replay.servers=1"]),
                         (700, ["--resume", alone])):
        result = subprocess.run([BIN / "pompc", "train", *flags, "--set", f"total_decisions={total}"],
                                capture_output=True, text=True, timeout=120)
        expect(result.returncode == 0 and "Finished after" in result.stdout,
               f"--in-process, then --resume: {result.returncode} {result.stdout}{result.stderr}")
        for name in ("losses.csv", "returns.csv", "evaluations.csv"):
            now = rows(name, of=alone)
            before = kept.get(name, [])
            expect(now[:len(before)] == before and len(now) > len(before), f"{name} was not continued")
            kept[name] = now
    run_records.check(alone, expect)
    last = kept["evaluations.csv"][-1]
    expect(int(last["decisions"]) >= 700, f"the last evaluation: {last}")
    expect((alone / "journal/replay-0/CURRENT").exists(), "replay kept no journal")


def main():
    global train
    (folder / "run.textproto").write_text(CONFIG)
    train, out = start("first", "--config", folder / "run.textproto", "--run-dir", run)
    wait_for_decisions(SEED + 300)
    wait_for("a checkpoint", (run / "checkpoint.safetensors").exists)
    # Nobody else may lead this run.
    for intruder in ([BIN / "pompc", "train", "--resume", run],
                     [BIN / "pompc-learner", "--resume", "--run-dir", run]):
        refused = subprocess.run(intruder, capture_output=True, text=True, timeout=60)
        expect(refused.returncode == 1 and f"pid {learner_pid()}" in refused.stdout + refused.stderr,
               f"a second process: {refused.returncode} {refused.stdout}{refused.stderr}")
    watching = run_records.reader(run)  # As TensorBoard watches a run.
    watching.Reload()
    expect(watching.Scalars("returns/training"), "TensorBoard sees nothing of a run that goes on")
    rows_before = learner_metric("pompc_replay_items")
    train.send_signal(signal.SIGINT)
    text = end(out, 130)
    stopped_at = summary_decisions(text)
    expect("Stopped after" in text and f"pompc train --resume {run}" in text and
           stopped_at >= SEED + 300 and "ended:" not in text, f"the first summary: {text}")

    refuse_another_config()
    train, out = start("second", "--resume", run)
    first_count = wait_for("the learner counts", lambda: learner_metric("pompc_learner_decisions"))
    expect(first_count >= stopped_at, f"resumed with {first_count} of {stopped_at} decisions")
    rows_now = learner_metric("pompc_replay_items")
    expect(rows_now >= rows_before, f"resumed with {rows_now} of {rows_before} rows")
    decisions_before = wait_for_decisions(first_count + 300)
    watching.Reload()
    rows_before, killed = learner_metric("pompc_replay_items"), learner_pid()
    os.kill(killed, signal.SIGKILL)
    wait_for("another learner", lambda: learner_pid() not in (None, killed) and learner_metric("pompc_learner_decisions"))
    expect(learner_metric("pompc_replay_items") >= rows_before and
           learner_metric("pompc_learner_decisions") >= decisions_before, "acknowledged rows are lost")
    text = end(out, 0)
    expect("learner ended: killed by signal 9" in text and text.count("ended:") == 1 and
           "Restarted processes: 1 " in text, f"more than the learner was restarted: {text}")
    expect("Finished after" in text and summary_decisions(text) >= TOTAL and
           re.search(r"Evaluation return \d", text), f"the second summary: {text}")
    logs = "".join(log.read_text() for log in run.glob("logs/actor-*.log"))
    expect("begins anew" not in logs, "the actors saw another table")
    status = (run / "status.textproto").read_text()
    expect(f"\nupdates: {TOTAL}\n" in status, f"updates are not as many as decisions: {status}")

    losses, returns, evaluations = map(rows, ("losses.csv", "returns.csv", "evaluations.csv"))
    updates = [int(row["updates"]) for row in losses]
    expect(updates == list(range(20, 20 * len(updates) + 1, 20)), f"losses.csv: updates {updates}")
    for name, table in (("returns.csv", returns), ("evaluations.csv", evaluations)):
        expect(len({tuple(row.values()) for row in table}) == len(table), f"{name}: a row twice")
        for column in ("updates", "seconds"):
            values = [float(row[column]) for row in table]
            expect(values == sorted(values), f"{name}: {column} goes back: {values}")
    episodes = [tuple(row[c] for c in ("role", "actor_index", "decisions_at", "return"))
                for row in returns if row["role"] == "actor"]
    expect(len(set(episodes)) == len(episodes), "returns.csv: an episode twice")
    due = {int(row["decisions"]) // 600 for row in evaluations}
    expect(int(evaluations[-1]["decisions"]) >= TOTAL and len(evaluations) <= len(due) + 1,
           f"evaluations at {[row['decisions'] for row in evaluations]}")
    shown = run_records.check(run, expect)
    expect(run_records.THROUGHPUT <= set(shown), f"no throughput among {sorted(shown)}")
    watching.Reload()
    for tag, points in run_records.scalars(watching).items():
        # Of the steps up to the checkpoint it may remember points that were recorded after it.
        steps = [step for step, _ in points]
        expect(set(shown[tag]) <= set(points) and steps == sorted(steps),
               f"{tag}: who has watched sees {points}, who comes now {shown[tag]}")
    continue_a_run_of_one_process()
    print(json.dumps({"stopped_at": stopped_at, "resumed_at": first_count,
                      "finished_at": summary_decisions(text), "evaluations": len(evaluations)}))


if __name__ == "__main__":
    main()
