#!/usr/bin/env python3
"""Times exact search beside faiss IndexFlatIP, one thread each, in the same run.

    bench/flat/run.py --build BUILD [--venv DIR] [--repeats N] [--sizes 1000000x128,200000x512] [--json FILE]

BUILD is the folder Meson built into; its bench/bench_flat does our side. Both sides hold the same normalised vectors and take turns,
store by store, so that whatever else the machine does meets both. Every figure is the median over the repeats, every
ratio the median of the ratios of the turns of one round (queries per second over those of faiss, for batches those of
faiss with BLAS: above 1 is faster).
faiss is installed into DIR (made when missing) at the version below.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FAISS = "faiss-cpu==1.15.1"
NUMPY = "numpy==2.4.6"
K = 10
SINGLE, BATCHED, BATCH = 8, 64, 64  # queries timed one by one, and in batches of how many
STORES = ("f32", "mapped", "f16", "i8")  # mapped: f32 in a mapped file, as a collection holds them
WIDTH = {"f16": 2, "i8": 1}  # bytes of a component where it is not 4


def enter_venv(directory):
    """Runs this script again with the interpreter of the virtual environment, which gets the packages first."""
    python = os.path.join(directory, "bin", "python")
    stamp = os.path.join(directory, "likeness-flat-" + FAISS.replace("=", "-"))
    if not os.path.exists(stamp):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", FAISS, NUMPY], check=True)
        open(stamp, "w").close()
    # OpenBLAS reads the environment when it is loaded. The one inside faiss does not know recent processors and falls back
    # to kernels of 2004 for them: told what it can use, it is several times faster, and that is what we compare with.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LIKENESS_FLAT_VENV=directory)
    with open("/proc/cpuinfo") as cpuinfo:
        flags = cpuinfo.read().split()
    if "avx512bw" in flags:
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    elif "avx2" in flags:
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.execv(python, [python, *sys.argv])


class Ours:
    """The program bench_flat, holding data on the other end of a pipe."""

    def __init__(self, program, vectors, queries, rows, dim, count):
        self.process = subprocess.Popen(
            [program, vectors, str(rows), str(dim), queries, str(count), str(K)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cpu = self.line().split()[1]

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench_flat ended early")
        return line

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit("bench_flat failed")


def normalised(rng, rows, dim):
    import numpy
    out = rng.standard_normal((rows, dim), dtype=numpy.float32)
    return out / numpy.linalg.norm(out, axis=1, keepdims=True)


class Peer:
    """faiss IndexFlatIP: as it comes, and with batches sent to its BLAS, which this version does not do by itself."""

    def __init__(self, vectors):
        import faiss
        faiss.omp_set_num_threads(1)
        self.faiss = faiss
        self.default = faiss.cvar.distance_compute_blas_threshold
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)

    def turn(self, queries, size, blas):
        self.faiss.cvar.distance_compute_blas_threshold = 2 if blas else self.default
        start = time.perf_counter()
        ids = [self.index.search(queries[i:i + size], K)[1] for i in range(0, len(queries), size)]
        return time.perf_counter() - start, [row for part in ids for row in part]


def agreement(found, expected):
    return statistics.mean(len(set(a) & set(b)) / K for a, b in zip(found, expected))


def measure_kind(ours, peer, queries, size, first, repeats):
    """Times every store and the peer in turns; returns seconds per side and the share of ids found by both."""
    which = f"{size} {first} {len(queries)}"
    peers = ["faiss"] if size == 1 else ["faiss", "faiss+BLAS"]
    seconds = {name: [] for name in (*STORES, "read", *peers)}
    agreements = {}
    expected = peer.turn(queries, size, False)[1]
    for store in STORES:
        ids = [int(word) for word in ours.ask(f"ids {store} {which}").split()]
        agreements[store] = agreement([ids[i:i + K] for i in range(0, len(ids), K)], expected)
    peaks = []
    for _ in range(repeats):
        for store in STORES:
            seconds[store].append(float(ours.ask(f"time {store} {which}")))
            if store == "f32":  # the peer's turn comes right after the store that is compared with it
                seconds[peers[-1]].append(peer.turn(queries, size, size > 1)[0])
        if size > 1:
            seconds["faiss"].append(peer.turn(queries, size, False)[0])
        seconds["read"].append(float(ours.ask("read")))
        peaks.append(float(ours.ask("peak")))
    return seconds, agreements, peers[-1], statistics.median(peaks)


def measure(program, rows, dim, repeats, folder):
    import numpy
    rng = numpy.random.default_rng(1)
    vectors, queries = normalised(rng, rows, dim), normalised(rng, SINGLE + BATCHED, dim)
    vectors_path, queries_path = os.path.join(folder, "vectors.f32"), os.path.join(folder, "queries.f32")
    vectors.tofile(vectors_path)
    queries.tofile(queries_path)
    peer = Peer(vectors)
    del vectors
    ours = Ours(program, vectors_path, queries_path, rows, dim, len(queries))
    report = {"rows": rows, "dim": dim, "cpu": ours.cpu, "results": []}
    for size, first, count in ((1, 0, SINGLE), (BATCH, SINGLE, BATCHED)):
        seconds, agreements, against, peak = measure_kind(ours, peer, queries[first:first + count], size, first, repeats)
        report["peak GFLOPS"] = peak / 1e9
        for name, times in seconds.items():
            median = statistics.median(times)
            passes = 1 if name == "read" else count / size
            row = {"queries": size, "side": name, "seconds": median, "fastest": min(times),
                   "GBps": rows * dim * WIDTH.get(name, 4) * passes / median / 1e9}
            if name != "read":
                row.update(qps=count / median, GFLOPS=2e-9 * rows * dim * count / median, against=against,
                           ratio=statistics.median(f / t for f, t in zip(seconds[against], times)))
            if name in agreements:
                row["agreement"] = agreements[name]
            report["results"].append(row)
    ours.close()
    return report


def show(report):
    print(f"{report['rows']} x {report['dim']}, k = {K}, one thread, {report['cpu']} kernels, "
          f"peak {report['peak GFLOPS']:.0f} GFLOP/s; peer {FAISS} IndexFlatIP")
    print(f"{'queries':>9} {'side':12}{'seconds':>10}{'queries/s':>11}{'GB/s':>8}{'GFLOP/s':>9}{'ratio':>8}{'same ids':>10}")
    for r in report["results"]:
        cells = [format(r[key], form) if key in r else "" for key, form in
                 (("qps", ".1f"), ("GBps", ".2f"), ("GFLOPS", ".1f"), ("ratio", ".3f"), ("agreement", ".4f"))]
        print(f"{r['queries']:9} {r['side']:12}{r['seconds']:10.4f}{cells[0]:>11}{cells[1]:>8}{cells[2]:>9}{cells[3]:>8}"
              f"{cells[4]:>10}")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-flat"))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", default="1000000x128,200000x512")
    parser.add_argument("--json")
    options = parser.parse_args()
    if os.environ.get("LIKENESS_FLAT_VENV") != options.venv:
        enter_venv(options.venv)
    reports = []
    for size in options.sizes.split(","):
        rows, dim = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            reports.append(measure(os.path.join(options.build, "bench", "bench_flat"), rows, dim, options.repeats, folder))
        show(reports[-1])
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"faiss": FAISS, "k": K, "repeats": options.repeats, "reports": reports}, out, indent=1)


if __name__ == "__main__":
    main()
