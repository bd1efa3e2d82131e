#!/usr/bin/env python3
"""Real logos end to end: time, memory and quality of each classical embedder on the corpus of tools/logos.

    bench/logos/run.py --build build/release [--kinds vlad,bovw] [--corpus build/logos]

Prints one row an embedder: pictures per second of the whole `index` command, seconds of learning the vocabulary, decoding
and embedding as the program reports them, peak memory of the process, and the metrics of the test split (brands that
nothing was tuned on) with every other picture of the corpus in the gallery.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

root = pathlib.Path(__file__).resolve().parents[2]
parser = argparse.ArgumentParser()
parser.add_argument("--build", default="build/release")
parser.add_argument("--corpus", default=str(root / "build" / "logos"))
parser.add_argument("--kinds", default="vlad,bovw")
args = parser.parse_args()
program = str(root / args.build / "src" / "cli" / "likeness")


def run(command):
    """Output, seconds and peak resident MiB of one finished process."""
    started = time.time()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return output, time.time() - started, usage.ru_maxrss / 1024


subprocess.run([str(root / "tools" / "logos" / "build"), args.corpus], check=True)
print("| embedder | images | index s | images/s | decode s | embed s | peak MiB | queries | mAP | recall@1 (hit) | nDCG@10 | search ms |")
print("|---|---|---|---|---|---|---|---|---|---|---|---|")
for kind in args.kinds.split(","):
    folder = tempfile.mkdtemp(prefix="likeness-bench-")
    try:
        collection = os.path.join(folder, "logos.lk")
        output, seconds, peak = run([program, "index", os.path.join(args.corpus, "logos.csv"), "--into", collection,
                                     "--kind", kind, "--json"])
        report = json.loads(output)
        metrics = json.loads(run([program, "eval", collection, "--query", "split=test", "--json"])[0])
        first = json.loads(run([program, "search", collection, "id:1", "--json"])[0])["results"]
        assert first, "a search found nothing"
        cold = min(run([program, "search", collection, "id:1", "--json"])[1] for _ in range(3))
        images = report["indexed"]
        print(f"| {kind} | {images} | {seconds:.1f} | {images / seconds:.0f} | {report['decode_seconds']:.1f} | "
              f"{report['embed_seconds']:.1f} | {peak:.0f} | {metrics['queries']} | {metrics['mAP']:.4f} | "
              f"{metrics['hit@1']:.4f} | {metrics['nDCG@10']:.4f} | {cold * 1000:.0f} |", flush=True)
    finally:
        shutil.rmtree(folder)
