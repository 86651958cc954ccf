#!/usr/bin/env python3
"""`pompc plot`: what is in the picture, read back from it by its own axes, and what it refuses."""
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
RESULTS = pathlib.Path("docs/results")
SVG = "{http://www.w3.org/2000/svg}"
HEADER = ("role,actor_index,decisions_at,env_steps,return,episode_decisions,parameter_version,"
          "updates,seconds\n")
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_plot_"))


def expect(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def near(found, wanted):
    return len(found) == len(wanted) and all(abs(a - b) < 1e-3 * max(1, abs(b))
                                             for f, w in zip(found, wanted) for a, b in zip(f, w))


def make_run(name, seed, evaluations, task="cheetah-jump", preset="a & <b>", more=""):
    """A run's folder with {environment steps: returns of the episodes} of its evaluations."""
    run = folder / name
    run.mkdir()
    (run / "config.textproto").write_text(
        f'preset: "{preset}" seed: {seed} environment {{ task: "{task}" }} {more}')
    rows = "actor,0,0,0,-1e6,500,0,0,1.0\n"  # Of training: not drawn.
    for steps, returns in evaluations.items():
        rows += "".join(f"evaluator,0,{steps // 2},{steps},{r},500,1,9,1.5\n" for r in returns)
    (run / "returns.csv").write_text(HEADER + rows)
    return run


def plot(*args, succeeds=True):
    done = subprocess.run([BIN / "pompc", "plot", *map(str, args)], capture_output=True, text=True,
                          cwd=folder, timeout=60)
    expect((done.returncode == 0) == succeeds, f"{args}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Picture:
    """Of one task."""

    def __init__(self, path):
        self.root = xml.parse(path).getroot()
        expect(self.root.tag == SVG + "svg", f"the root is {self.root.tag}")
        self.x = self.axis("xtick", "x", 0)
        self.y = self.axis("ytick", "y", 4)  # Labels stand 4 pixels below their lines.

    def axis(self, kind, coordinate, shift):
        """From pixels to values, by the first and last label."""
        def number(text):
            return float(text[:-1]) * {"k": 1e3, "M": 1e6}[text[-1]] if text[-1] in "kM" else float(text)
        ticks = [(float(t.get(coordinate)) - shift, number(t.text)) for t in self.texts(kind)]
        (p0, v0), (p1, v1) = ticks[0], ticks[-1]
        return lambda p: v0 + (p - p0) * (v1 - v0) / (p1 - p0)

    def texts(self, kind):
        return [t for t in self.root.iter(SVG + "text") if t.get("class") == kind]

    def shapes(self, kind):
        """{name: points} of the lines or bands of a class."""
        return {shape.get("data-name"): [(self.x(float(a)), self.y(float(b))) for a, b in
                                         (p.split(",") for p in shape.get("points").split())]
                for tag in ("polyline", "polygon") for shape in self.root.iter(SVG + tag)
                if shape.get("class") == kind}


def runs_become_a_line_with_a_band():
    one = make_run("one", 1, {10_000: [100, 300], 20_000: [400], 30_000: [500]})
    two = make_run("two", 2, {10_400: [400], 20_400: [600]})  # Ends earlier, other steps.
    other = make_run("other", 1, {10_000: [50], 30_000: [70]}, preset="other")
    said = plot(one, two, other)
    expect("3 runs drawn into curves.svg" in said and "cheetah-jump: no published curve" in said, said)
    picture = Picture(folder / "curves.svg")
    means, bands = picture.shapes("mean"), picture.shapes("band")
    expect(set(means) == {"a & <b>", "other"} and set(bands) == {"a & <b>"}, f"{set(means)}, {set(bands)}")
    # At 10,000 the second counts with its first evaluation; at 30,000 it is over.
    line = [(10_000, (200 + 400) / 2, 200, 400), (10_400, (208 + 400) / 2, 208, 400),
            (20_000, (400 + 592) / 2, 400, 592), (20_400, (404 + 600) / 2, 404, 600),
            (30_000, 500, 500, 500)]
    expect(near(means["a & <b>"], [(x, mean) for x, mean, _, _ in line]), f"mean: {means['a & <b>']}")
    corners = [(x, high) for x, _, _, high in line] + [(x, low) for x, _, low, _ in reversed(line)]
    expect(near(bands["a & <b>"], corners), f"band: {bands['a & <b>']}")
    expect(near(means["other"], [(10_000, 50), (30_000, 70)]), f"one seed: {means['other']}")
    legend = [t.text for t in picture.texts("legend")]
    expect(legend == ["a & <b> (2 seeds, 1 to the end)", "other (1 seed)"], f"legend: {legend}")


def what_differs_is_no_seed():
    runs = [make_run(f"weight{i}", i, {1000: [i]}, preset="p", more=f"learning {{ kl_weight: {w} }} {c}")
            for i, w, c in ((1, 0.3, ""), (2, 0.3, "actor { num_actors: 7 }"), (3, 0.5, ""))]
    plot(*runs, "-o", "weights.svg")
    legend = [t.text for t in Picture(folder / "weights.svg").texts("legend")]
    expect(legend == ["p, learning.kl_weight=0.3 (2 seeds)", "p, learning.kl_weight=0.5 (1 seed)"],
           f"legend: {legend}")


def published_curves_are_beside():
    run = make_run("walker", 1, {60_000: [700], 160_000: [800]}, task="walker-walk")
    expect("no published" not in plot(run, "-o", "walker.svg"), "walker-walk is published")
    picture = Picture(folder / "walker.svg")
    published = [row.split(",") for row in (RESULTS / "published-returns.csv").read_text().splitlines()]
    for algorithm in ("tdmpc2", "bmpc"):
        rows = [[float(v) for v in row[3:]] for row in published[1:]
                if row[1:3] == [algorithm, "walker-walk"] and float(row[3]) <= 200_000]
        expect([row[0] for row in rows] == [0, 100_000, 200_000], f"published: {rows}")
        expect(near(picture.shapes("published mean")[algorithm], [row[:2] for row in rows]), algorithm)
        corners = [(s, high) for s, _, _, high in rows] + [(s, low) for s, _, low, _ in reversed(rows)]
        expect(near(picture.shapes("published band")[algorithm], corners), f"band of {algorithm}")
    short = make_run("short", 1, {1000: [20], 2000: [30]}, task="walker-walk")
    expect("left out, their first point is at 100k steps" in plot(short, "-o", "short.svg"), "not said")
    expect(not Picture(folder / "short.svg").shapes("published mean"), "published curves dwarf the run")


def tables_are_read_too():
    """The project's own results, all tasks of a file in one picture."""
    here = pathlib.Path.cwd()
    for name in ("gpu-runs", "learning-curves", "quickstart"):
        plot(here / RESULTS / f"{name}.csv", "-o", f"{name}.svg")
        rows = [row for row in (RESULTS / f"{name}.csv").read_text().splitlines()[1:] if row]
        root = xml.parse(folder / f"{name}.svg").getroot()
        means = [(s.get("data-task"), s.get("data-name")) for s in root.iter(SVG + "polyline")
                 if s.get("class") == "mean"]
        variants = {(row.split(",")[0], row.split('"')[1] if '"' in row else row.split(",")[1])
                    for row in rows}
        expect(len(means) == len(variants) and set(means) == variants, f"{name}: {means}")
    plot(here / RESULTS / "gpu-runs.csv", "-t", "walker-run", "--variant", "bmpc, 5M, one H200")
    expect(set(Picture(folder / "curves.svg").shapes("mean")) == {"bmpc, 5M, one H200"}, "--variant")


def mistakes_are_named():
    good = make_run("good", 1, {1000: [1]})
    bad = make_run("bad", 1, {1000: [1]})
    returns = bad / "returns.csv"
    for row, error in (("evaluator,0,1,2,x,5,6,7,8", "returns.csv:2: return = 'x' is not a finite number"),
                       ("evaluator,0,1,2,nan,5,6,7,8", "returns.csv:2: return = 'nan' is not a finite"),
                       ("evaluator,0,1,-2,3,5,6,7,8", "returns.csv:2: env_steps = -2 is negative"),
                       ("evaluator,0,1", "returns.csv:2: 3 fields, but the header has 9"),
                       ('evaluator,"0,1,2,3,5,6,7,8', "returns.csv:2: quotes that are not closed"),
                       ("actor,0,1,2,3,5,6,7,8", "returns.csv: no episode of an evaluation in it yet")):
        returns.write_text(HEADER + row + "\n")
        said = plot(good, bad, succeeds=False)
        expect(error in said, f"{row}: {said}")
    returns.write_text("role,return\n")
    expect("returns.csv:1: no column env_steps in the header" in plot(bad, succeeds=False), "header")
    returns.write_text(HEADER)
    (bad / "config.textproto").write_text("preset: 7")
    expect("config.textproto is no config of a run" in plot(bad, succeeds=False), "config")
    (folder / "empty").mkdir()
    expect("empty is no run: it has no returns.csv" in plot(folder / "empty", succeeds=False), "empty")
    expect("missing" in plot(folder / "missing", succeeds=False), "a path that is not there")
    expect("no run with task 'dog-run'; there are 'cheetah-jump'" in
           plot(good, "-t", "dog-run", succeeds=False), "task")
    expect("no/such/folder" in plot(good, "-o", "no/such/folder/x.svg", succeeds=False), "output")


runs_become_a_line_with_a_band()
what_differs_is_no_seed()
published_curves_are_beside()
tables_are_read_too()
mistakes_are_named()
