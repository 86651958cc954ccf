#!/usr/bin/env python3
"""Draws evaluation returns over environment steps, with a band over seeds.

Usage: plot_curves.py CURVES.csv OUT.svg --task TASK [--match REGEX] [--published PUBLISHED.csv]

CURVES.csv: task,variant,seed,decisions,env_steps,return,... as in docs/results.
PUBLISHED.csv: suite,algorithm,task,env_steps,return_mean,ci_low,ci_high. Needs matplotlib.
"""
import argparse
import collections
import csv
import re

import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("curves")
    parser.add_argument("out")
    parser.add_argument("--task", required=True)
    parser.add_argument("--match", default="",
                        help="only variants in which this regular expression is found")
    parser.add_argument("--published")
    parser.add_argument("--published-until", type=float, default=2e5)
    args = parser.parse_args()

    variants = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in csv.DictReader(open(args.curves)):
        if row["task"] == args.task and re.search(args.match, row["variant"]):
            variants[row["variant"]][int(row["env_steps"])].append(float(row["return"]))
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "pompc"})
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    for variant, points in variants.items():
        steps = sorted(points)
        mean = [sum(points[s]) / len(points[s]) for s in steps]
        line, = axes.plot(steps, mean, label=f"{variant} ({len(points[steps[0]])} seeds)")
        axes.fill_between(steps, [min(points[s]) for s in steps], [max(points[s]) for s in steps],
                          color=line.get_color(), alpha=0.15, linewidth=0)
    if args.published:
        bands = collections.defaultdict(list)
        for row in csv.DictReader(open(args.published)):
            if row["task"] == args.task and row["suite"] == "dmc_1M" and \
                    row["algorithm"] in ("tdmpc2", "bmpc") and \
                    float(row["env_steps"]) <= args.published_until:
                bands[row["algorithm"]].append(
                    [float(row[k]) for k in ("env_steps", "return_mean", "ci_low", "ci_high")])
        for algorithm, rows in bands.items():
            x, mean, low, high = zip(*sorted(rows))
            axes.errorbar(x, mean, [[m - l for m, l in zip(mean, low)],
                                    [h - m for m, h in zip(mean, high)]], fmt="o--",
                          color="black" if algorithm == "tdmpc2" else "grey", capsize=3,
                          linewidth=1, label=f"published {algorithm}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("evaluation return")
    axes.set_title(args.task)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
