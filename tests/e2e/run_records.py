"""The records of a run in their three forms: CSV files, JSON lines and TensorBoard's event files."""
import csv
import json
import os
import pathlib
import sys

WHEELS = pathlib.Path(os.environ.get("POMPC_DEPS", ".deps")) / "wheels"
sys.path.append(str(WHEELS.resolve()))
from tensorboard.backend.event_processing import event_accumulator  # noqa: E402

THROUGHPUT = {"throughput/decisions_per_second", "throughput/updates_per_second",
              "throughput/updates_per_decision"}


def reader(run):
    """TensorBoard's own, which keeps all scalars; Reload() reads what is new."""
    return event_accumulator.EventAccumulator(
        str(run / "tensorboard"), size_guidance={event_accumulator.TENSORS: 0,
                                                 event_accumulator.SCALARS: 0})


def scalars(events):
    """{tag: [(step, value)]} of a reader."""
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def same(shown, wanted):
    """Equal steps, and values as near as TensorBoard's float32 allows."""
    return len(shown) == len(wanted) and all(
        a == b and abs(x - y) <= 1e-6 * abs(y) for (a, x), (b, y) in zip(shown, wanted))


def check(run, expect):
    """All forms say the same. Returns the scalars that TensorBoard shows."""
    tables = {name: list(csv.DictReader((run / f"{name}.csv").open()))
              for name in ("returns", "evaluations", "losses")}
    lines = [json.loads(line) for line in (run / "records.jsonl").open()]
    times = [line["time"] for line in lines]
    expect(times == sorted(times), "records.jsonl: time goes back")
    kinds = [line.pop("kind") for line in lines]
    expect(set(kinds) == {"episode", "evaluation", "losses"}, f"records.jsonl has {set(kinds)}")
    for kind, table in (("episode", "returns"), ("evaluation", "evaluations"), ("losses", "losses")):
        of_kind = [line for line, its_kind in zip(lines, kinds) if its_kind == kind]
        expect(len(of_kind) == len(tables[table]),
               f"records.jsonl has {len(of_kind)} of {kind}, {table}.csv {len(tables[table])}")
        for line, row in zip(of_kind, tables[table]):
            row = {name: value if name == "role" else float(value) for name, value in row.items()}
            more = {name: value for name, value in line.items() if name not in row}
            expect({**more, **row} == line and more.pop("time", 0) > 1.7e9 and
                   {f"throughput/{name}" for name in more} <= (THROUGHPUT if kind == "losses" else set()),
                   f"{line} is not {row}")

    events = reader(run)
    events.Reload()
    shown = scalars(events)
    wanted = {f"training/{name}": [(int(row["env_steps"]), float(row[name])) for row in tables["losses"]]
              for name in list(tables["losses"][0])[4:]}
    for tag, column in (("evaluation", "mean"), ("evaluation_least", "min"), ("evaluation_greatest", "max")):
        wanted[f"returns/{tag}"] = [(int(row["env_steps"]), float(row[column]))
                                    for row in tables["evaluations"]]
    for tag, points in wanted.items():
        expect(same(shown.get(tag, []), points), f"{tag}: TensorBoard has {shown.get(tag)}, the CSV file {points}")
    # How fast a run goes is not known at once, so a short one may not have it.
    expect(set(shown) - set(wanted) - THROUGHPUT == {"returns/training"}, f"TensorBoard has {sorted(shown)}")
    # One point for each report, the mean of its episodes: not more points than episodes.
    training = [float(row["return"]) for row in tables["returns"] if row["role"] == "actor"]
    points = shown["returns/training"]
    expect(0 < len(points) <= len(training) and
           all(min(training) - 1e-3 <= value <= max(training) + 1e-3 for _, value in points),
           f"returns/training: {points}")
    for tag, points in shown.items():
        steps = [step for step, _ in points]
        expect(steps == sorted(steps), f"{tag}: steps go back: {steps}")
    return shown
