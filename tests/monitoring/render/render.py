#!/usr/bin/env python3
"""Draws the console page and the dashboards of a run that is being watched, and looks for faults.

    pompc train --preset quickstart --monitor &
    tests/monitoring/render/render.py http://127.0.0.1:9090 OUT     writes OUT/NAME.png

Dashboards are drawn by Grafana's own panel components (main.jsx), all by headless Chromium. It fails
on a panel that shows an error, or no data for another reason than the live test's ALLOWED_EMPTY. Needs
npm and chromium; the components (460 MB) are kept in ~/.cache/pompc-render.
"""
import functools
import hashlib
import html
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MINUTES = 5
ROW = 32  # Pixels, as in main.jsx.
CONSOLE_SIZE = "1215,1010"


def build():
    """The folder of index.html and its bundle."""
    sources = [HERE / name for name in ("package.json", "main.jsx", "index.html")]
    key = hashlib.sha256(b"".join(s.read_bytes() for s in sources[:1])).hexdigest()[:16]
    folder = pathlib.Path.home() / ".cache/pompc-render" / key
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copy(source, folder)
    if not (folder / "node_modules/.installed").exists():
        subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
        (folder / "node_modules/.installed").touch()
    loaders = [f"--loader:.{kind}=dataurl" for kind in ("svg", "woff2", "png", "ttf")]
    subprocess.run(["node_modules/.bin/esbuild", "main.jsx", "--bundle", "--minify", "--outfile=bundle.js",
                    '--define:process.env.NODE_ENV="production"', "--define:global=window", "--jsx=automatic",
                    *loaders], cwd=folder, check=True)
    return folder


def chromium(url, size, picture):
    """The page's elements, after a picture of it was written."""
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            ["chromium", "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
             f"--window-size={size}", "--virtual-time-budget=15000", "--dump-dom", f"--screenshot={picture}", url],
            capture_output=True, text=True, timeout=180, check=True).stdout


def main():
    prometheus, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    folder = build()
    dashboards = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    for dashboard in dashboards:
        shutil.copy(dashboard, folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    faults = []
    for dashboard in dashboards:
        query = urllib.parse.urlencode({"dashboard": dashboard.name, "prometheus": prometheus, "minutes": MINUTES})
        url = f"http://127.0.0.1:{server.server_port}/index.html?{query}"
        rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in json.loads(dashboard.read_text())["panels"])
        size = f"1215,{rows * ROW + 48}"
        page = chromium(url, size, out / f"{dashboard.stem}.png")
        panels = re.findall(r'class="panel"(?: data-title="([^"]*)")? data-state="(\w+)"', page)
        if not panels:
            faults.append(f"{dashboard.name}: nothing was drawn")
        faults += [f"{dashboard.name}: {html.unescape(title)}: {state}" for title, state in panels if state != "ok"]
    page = chromium(f"{prometheus}/consoles/run.html", CONSOLE_SIZE, out / "console.png")
    state = re.search(r'<body data-state="(\w+)"', page)
    if state is None or state[1] != "ok":
        faults.append(f"run.html: {state and state[1]}")
    for fault in faults:
        print("FAILED:", fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
