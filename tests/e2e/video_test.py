#!/usr/bin/env python3
"""Videos of evaluations: what `pompc train` leaves when it is asked to, of all processes and of one,
and that it trains on where none can be made."""
import csv
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
DECISIONS, PER_SECOND = 30, 50  # Of an episode; cartpole decides 50 times a second at repeat 2.
CONFIG = f"""
preset: "video" total_decisions: 700
environment {{ task: "cartpole-swingup" episode_steps: {2 * DECISIONS} }}
model {{ latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }}
planner {{ num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }}
learning {{ batch_size: 16 seed_decisions: 100 seed_episodes: 1 reanalyze_windows: 2 }}
replay {{ capacity_rows: 10000 rate_tolerance_updates: 60 }}
evaluation {{ every_decisions: 300 episodes: 2 video: true }}
"""
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_video_"))


def expect(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def train(name, *flags, path=None):
    run = folder / name
    done = subprocess.run([BIN / "pompc", "train", "--config", folder / "run.textproto", "--run-dir", run, *flags],
                          capture_output=True, text=True, timeout=200,
                          env={**os.environ, **({"PATH": path} if path else {})})
    expect(done.returncode == 0, f"{name}: {done.returncode} {done.stdout}{done.stderr}")
    return run, done.stdout + done.stderr


def first_returns(run):
    """{environment steps: return of the first episode} of the evaluations."""
    first = {}
    for row in csv.DictReader((run / "returns.csv").open()):
        if row["role"] == "evaluator":
            first.setdefault(int(row["env_steps"]), float(row["return"]))
    return first


def check(run, said):
    videos = sorted((run / "videos").iterdir())
    names = [re.fullmatch(r"steps-(\d{10})-return-(-?[\d.]+)\.mp4", v.name) for v in videos]
    expect(all(names), f"{[v.name for v in videos]}")
    found = {int(n[1]): float(n[2]) for n in names}
    wanted = first_returns(run)
    expect(len(wanted) >= 2 and set(found) == set(wanted) and
           all(abs(found[s] - wanted[s]) <= 0.06 for s in wanted), f"videos {found}, evaluations {wanted}")
    expect(f"videos/                 of the evaluations: {len(found)}" in said, f"the summary: {said}")
    for video in videos:
        told = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-of", "csv=p=0", "-show_entries",
                               "stream=nb_read_frames,avg_frame_rate,width,height", video],
                              capture_output=True, text=True, timeout=60).stdout.strip()
        expect(told == f"640,480,{PER_SECOND}/1,{DECISIONS}", f"{video.name}: {told}")


def main():
    (folder / "run.textproto").write_text(CONFIG)
    if shutil.which("ffprobe") is None:
        print("skipped: no ffmpeg here")
        sys.exit(77)
    check(*train("all"))
    check(*train("one", "--in-process"))
    # Without ffmpeg there is one warning, however many evaluations there are.
    (folder / "empty").mkdir()
    run, said = train("none", path=str(folder / "empty"))
    expect(len(first_returns(run)) >= 2 and "of the evaluations" not in said, f"without ffmpeg: {said}")
    log = (run / "logs/evaluator.log").read_text()
    expect(log.count("no videos of evaluations: videos need ffmpeg: apt-get install ffmpeg") == 1,
           f"the evaluator's log: {log}")


main()
