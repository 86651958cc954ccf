#!/usr/bin/env python3
"""Draws what fleet_bench prints, as SVG: plot_fleet.py CSV > SVG. Both axes of each panel are logarithmic."""
import csv
import math
import sys

PANELS = (
    ("seconds", 1e-4, 10, {
        "acknowledgement, median": lambda r: r["ack_p50_ms"] / 1e3,
        "acknowledgement, 99 %": lambda r: r["ack_p99_ms"] / 1e3,
        "a version has reached all": lambda r: r["fan_out_p50_ms"] / 1e3}),
    ("CPU cores", 1e-3, 10, {
        "learner's front": lambda r: r["learner_cores"],
        "replay": lambda r: r["replay_cores"],
        "all simulated actors": lambda r: r["actors_cores"]}))
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")
WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 260, 62, 34, 90


def main():
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(open(sys.argv[1]))]
    most = max(row["actors"] for row in rows)
    out = []

    def text(x, y, content, anchor="middle", colour="black"):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{content}</text>')

    def line(points, colour, width):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    for number, (unit, low, high, curves) in enumerate(PANELS):
        left = LEFT + number * (WIDTH + GAP)
        x_of = lambda n: left + WIDTH * math.log(n) / math.log(most)
        y_of = lambda v: TOP + HEIGHT * (1 - math.log(max(v, low) / low) / math.log(high / low))
        for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
            line([(left, y_of(10**power)), (left + WIDTH, y_of(10**power))], "#dddddd", 1)
            text(left - 6, y_of(10**power) + 4, f"{10.0**power:g}", "end")
        for row in rows:
            text(x_of(row["actors"]), TOP + HEIGHT + 18, f"{row['actors']:,.0f}")
        text(left + WIDTH / 2, TOP + HEIGHT + 38, "actors")
        text(left - 6, TOP - 16, unit)
        for place, (name, value) in enumerate(curves.items()):
            points = [(x_of(row["actors"]), y_of(value(row))) for row in rows]
            line(points, COLOURS[place], 2)
            for x, y in points:
                out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[place]}"/>')
            text(left + 10, TOP + 16 + 16 * place, name, "start", COLOURS[place])
    width, height = LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + 50
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
          f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>', *out, "</svg>", sep="\n")


main()
