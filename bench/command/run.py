#!/usr/bin/env python3
"""Measures the whole `likeness search` command on a large collection: a new process each time, files in the page cache.

    bench/command/run.py --build BUILD --vectors VECTORS.npy [--count 1000000] [--keep FOLDER] [--query FILE ...]
                          [--prepare-only]

A collection of a few drawings with the shipped model (its vectors have 128 components) is filled with outside vectors and
indexed. Then the command is run --runs times by id, by another drawing (SVG) and by the pictures --query,
and thrice exactly. Printed are
the time from start to exit, the most memory a run had resident (pages of mapped files included), its page faults and the
size of the collection's files.
"""
import argparse
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def prepare(options, collection):
    drawings = sorted((ROOT / "build" / "logos" / "svg").rglob("*.svg"))[:options.pictures]
    listed = "".join(f"{d}\n" for d in drawings)
    tool = options.build / "src" / "cli" / "likeness"
    subprocess.run([tool, "index", "-", "--into", collection, "--model", ROOT / "models" / "logo", "--quiet"], input=listed,
                   text=True, check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    subprocess.run([options.build / "bench" / "bench_fill", collection, options.vectors, str(options.count - len(drawings)),
                    *(["labels"] if options.labels else [])],
                   check=True)
    filled = time.monotonic()
    subprocess.run([tool, "index", drawings[0], "--into", collection, "--index", options.index, "--rebuild", "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    print(f"filled in {filled - start:.0f} s, indexed in {time.monotonic() - filled:.0f} s", flush=True)


def once(command):
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command}: {status}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "resident": usage.ru_maxrss * 1024,
            "minor": usage.ru_minflt, "major": usage.ru_majflt}


def measure(options, collection):
    tool = str(options.build / "src" / "cli" / "likeness")
    for path in collection.rglob("*"):
        if path.is_file():
            path.read_bytes()  # into the page cache
    size = sum(p.stat().st_size for p in collection.rglob("*") if p.is_file())
    subprocess.run([tool, "info", collection], check=True)
    picture = sorted((ROOT / "build" / "logos" / "svg").rglob("*.svg"))[options.pictures]
    chance = random.Random(1)
    ways = {"by id": lambda: f"id:{chance.randrange(1, options.count)}", "by a drawing": lambda: str(picture)}
    ways |= {f"by {file}": lambda file=file: file for file in options.query}
    print(f"files of the collection: {size / 2**20:.0f} MiB\n\n|  | median, ms | slowest of {options.runs}, ms | processor time, ms "
          "| most resident, MiB | page faults | from disk |\n|---|---|---|---|---|---|---|")
    results = {way: [] for way in [*ways, "by id, exact"]}
    for _ in range(options.runs):
        for way, query in ways.items():
            results[way].append(once([tool, "search", str(collection), query()]))
    results["by id, exact"] = [once([tool, "search", str(collection), "id:5", "--exact"]) for _ in range(3)]
    for way, runs in results.items():
        middle = lambda key: statistics.median(r[key] for r in runs)
        print(f"| {way} | {1e3 * middle('seconds'):.1f} | {1e3 * max(r['seconds'] for r in runs):.1f} | {1e3 * middle('cpu'):.1f} | "
              f"{max(r['resident'] for r in runs) / 2**20:.0f} | {middle('minor'):.0f} | {middle('major'):.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--count", type=int, default=1000000)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--index", default="auto")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--query", nargs="*", default=[], help="picture files of other formats")
    parser.add_argument("--labels", action="store_true", help="four labels and some widths, to measure --where with")
    parser.add_argument("--prepare-only", action="store_true")
    options = parser.parse_args()
    options.build = options.build.resolve()
    with tempfile.TemporaryDirectory() as folder:
        collection = (options.keep or pathlib.Path(folder)) / "million.lk"
        if not collection.exists():
            collection.parent.mkdir(parents=True, exist_ok=True)
            prepare(options, collection)
        if not options.prepare_only:
            measure(options, collection)


if __name__ == "__main__":
    main()
