#!/usr/bin/env python3
"""Start-up of `likeness search` with a network: time from the start of the program to its answer.

    run.py --build BUILD --model DIR --pictures DIR --query PICTURE [--runs 15]

Indexes the pictures with the model into a temporary collection, then searches for PICTURE again and again, which must not be among
them: the vector of an indexed picture is taken from the collection and no network runs. Warm:
every file is in the page cache. Cold: the collection, the program and its libraries were dropped from it before each run.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time


def drop(path):
    """Out of the page cache, where nobody has it mapped."""
    fd = os.open(path, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def measure(command, before=lambda: None):
    before()
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    program = str(pathlib.Path(options.build) / "src/cli/likeness")
    libraries = [line.split()[2] for line in subprocess.run(["ldd", program], capture_output=True, text=True).stdout.splitlines() if "=> /" in line]
    with tempfile.TemporaryDirectory(dir=options.build) as folder:
        collection = pathlib.Path(folder) / "p.lk"
        index = [program, "index", options.pictures, "--into", collection, "--model", options.model, "-q"]
        if subprocess.run(index).returncode not in (0, 3):  # 3: some files were no pictures
            raise SystemExit("the collection could not be made")
        picture = options.query
        for label, what in (("search", ["search", str(collection), picture, "-k", "5"]), ("info", ["info", str(collection)])):
            command = [program, *what]
            files = [program, picture, *libraries, *(str(p) for p in collection.rglob("*") if p.is_file())]
            cold = [measure(command, lambda: [drop(f) for f in files]) for _ in range(max(3, options.runs // 3))]
            warm = [measure(command) for _ in range(options.runs + 1)][1:]
            for name, times in (("cold", cold), ("warm", warm)):
                print(f"{label} {name}: median {statistics.median(times):.3f} s, {min(times):.3f} to {max(times):.3f} ({len(times)} runs)", flush=True)


main()
