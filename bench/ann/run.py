#!/usr/bin/env python3
"""Measures our vector indexes beside the libraries that people use, on the same vectors, in the same run.

    bench/ann/run.py --build BUILD --dir DIR [--python PYTHON] [--rows N] [--only ours-partitioned,scann,...] [--rounds 3]

DIR holds base.npy and query.npy, float32 (tools/vectors/sift.py makes them from photographs). Each side builds its index
in a process of its own with --build-threads threads, then all sides take turns, --rounds times, each searching all queries
one at a time on one thread at every effort. A point's speed is that of its fastest pass, because the machine may do
something else besides; the median latency of a query in that pass is printed too. Recall is that of the 10 nearest, the
truth is found exactly. Memory of a peer is what its process grew by while it built (vectors given to it not counted, those
it copies are); ours is the whole index, since it keeps no vectors besides. The last tables give queries per second at equal
recall, interpolated along each side's sweep, and the ratio to each peer.

The peers' versions are those of requirements.txt, installed into a virtual environment in --venv unless --python names an
interpreter that has them.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

K = 10
PASSES = 3
RECALLS = (0.90, 0.95, 0.99)
HERE = pathlib.Path(__file__).resolve().parent


# ---- the peers: each builds and returns (search(effort) -> function of one query, efforts) ----

def faiss_ivf_fast_scan(x, threads):
    import faiss
    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(x.shape[1], f"IVF1024,PQ{x.shape[1] // 2}x4fs,RFlat")
    index.train(x[:200000])
    index.add(x)
    faiss.omp_set_num_threads(1)
    index.k_factor = 10
    inner = faiss.downcast_index(index.base_index)

    def search(effort):
        inner.nprobe = effort
        return lambda q: index.search(q[None], K)[1][0]
    return search, [2, 4, 8, 12, 16, 24, 32, 48, 64, 128]


def faiss_hnsw_of(x, threads, kind):
    import faiss
    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(x.shape[1], kind)
    index.hnsw.efConstruction = 200
    index.train(x)
    index.add(x)
    faiss.omp_set_num_threads(1)

    def search(effort):
        index.hnsw.efSearch = effort
        return lambda q: index.search(q[None], K)[1][0]
    return search, [10, 20, 40, 80, 160, 320, 640]


def faiss_hnsw(x, threads):
    return faiss_hnsw_of(x, threads, "HNSW16")


def faiss_hnsw_sq8(x, threads):
    return faiss_hnsw_of(x, threads, "HNSW16_SQ8")


def hnswlib(x, threads):
    import hnswlib as library
    index = library.Index("l2", x.shape[1])
    index.init_index(len(x), M=16, ef_construction=200, random_seed=1)
    index.set_num_threads(threads)
    index.add_items(x)
    index.set_num_threads(1)

    def search(effort):
        index.set_ef(effort)
        return lambda q: index.knn_query(q, k=K)[0][0]
    return search, [10, 20, 40, 80, 160, 320, 640]


def scann(x, threads):
    import scann as library
    index = (library.scann_ops_pybind.builder(x, K, "squared_l2").set_n_training_threads(threads)
             .tree(num_leaves=1000, num_leaves_to_search=50, training_sample_size=200000)
             .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build())

    def search(effort):
        leaves, reordered = effort
        return lambda q: index.search(q, leaves_to_search=leaves, pre_reorder_num_neighbors=reordered)[0]
    return search, [(2, 30), (5, 50), (10, 60), (20, 80), (30, 100), (40, 120), (60, 150), (80, 200), (150, 300)]


def svs(x, threads):
    import svs as library
    parameters = library.VamanaBuildParameters(graph_max_degree=32, window_size=128, alpha=1.2)
    index = library.Vamana.build(parameters, x, library.DistanceType.L2, num_threads=threads)
    index.num_threads = 1

    def search(effort):
        index.search_window_size = effort
        return lambda q: index.search(q[None], K)[0][0]
    return search, [10, 20, 40, 80, 160, 320]


def usearch(x, threads):
    from usearch.index import Index
    import numpy
    index = Index(ndim=x.shape[1], metric="l2sq", dtype="f32", connectivity=16, expansion_add=200, expansion_search=64)
    index.add(numpy.arange(len(x)), x, threads=threads)

    def search(effort):
        index.expansion_search = effort
        return lambda q: index.search(q, K, threads=1).keys
    return search, [10, 20, 40, 80, 160, 320, 640]


PEERS = {f.__name__: f for f in (scann, faiss_ivf_fast_scan, hnswlib, faiss_hnsw, faiss_hnsw_sq8, svs, usearch)}
OURS = ("ours-partitioned", "ours-graph")


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load(options):
    import numpy
    base = numpy.load(os.path.join(options.dir, "base.npy"), mmap_mode="r")[:options.rows or None]
    query = numpy.load(os.path.join(options.dir, "query.npy"))[:options.queries]
    return numpy.ascontiguousarray(base, dtype="float32"), numpy.ascontiguousarray(query, dtype="float32")


def child(options):
    """A peer in its own process: builds, says so, then measures its sweep once for each line of input."""
    import numpy
    base, queries = load(options)
    truth = [set(map(int, row)) for row in numpy.load(options.truth)]
    before, start = resident(), time.perf_counter()
    search, efforts = PEERS[options.child](base, options.build_threads)
    print(json.dumps({"build": time.perf_counter() - start, "bytes": resident() - before}), flush=True)
    os.sched_setaffinity(0, {options.cpu})
    for _ in sys.stdin:
        points = []
        for effort in efforts:
            one = search(effort)
            best = None
            for _ in range(PASSES):
                found, times = [], []
                for q in queries:
                    t = time.perf_counter()
                    found.append(one(q))
                    times.append(time.perf_counter() - t)
                if best is None or sum(times) < sum(best):
                    best = times
            recall = sum(len(t & set(map(int, f))) for t, f in zip(truth, found)) / (K * len(queries))
            points.append({"effort": str(effort), "recall": recall, "qps": len(best) / sum(best),
                           "median": sorted(best)[len(best) // 2]})
            if recall > 0.997:
                break
        print(json.dumps(points), flush=True)


class Peer:
    def __init__(self, name, options, truth):
        command = [options.python, __file__, "--child", name, "--dir", options.dir, "--truth", truth, "--queries",
                   str(options.queries), "--build-threads", str(options.build_threads), "--cpu", str(options.cpu),
                   "--rows", str(options.rows)]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)
        self.built = json.loads(self.line())

    def line(self):
        """The next line of ours; some peers print too."""
        for line in self.process.stdout:
            if line.startswith(("{\"build\"", "[{\"effort\"")):
                return line
        raise RuntimeError(f"{self.name} ended early")

    def turn(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    def __init__(self, name, options, truth, folder):
        self.name, self.cpu = name, str(options.cpu)
        self.file = os.path.join(folder, name)
        self.common = [os.path.join(options.build, "src", "cli", "likeness"), "bench", "ann", "--base",
                       os.path.join(options.dir, "base.npy"), "--queries", os.path.join(options.dir, "query.npy"), "--truth",
                       truth, "--query-rows", str(options.queries), "--type", name.removeprefix("ours-"), "--quiet", "--json"]
        if options.rows:
            self.common += ["--rows", str(options.rows)]
        built = self.run("--threads", str(options.build_threads), "--search-threads", "1", "--efforts", "10", "--file", self.file)
        self.built = {"build": built["build_seconds"], "bytes": built["memory_bytes"], "what": built["index"]}

    def run(self, *more, prefix=()):
        return json.loads(subprocess.run([*prefix, *self.common, *more], check=True, stdout=subprocess.PIPE, text=True).stdout)

    def turn(self):
        points = self.run("--threads", "1", "--open", self.file, prefix=("taskset", "-c", self.cpu))["points"]
        return [{"effort": str(p["effort"]), "recall": p["recall"], "qps": p["qps"], "median": p["median_seconds"]}
                for p in points]

    def close(self):
        os.unlink(self.file)


def merge(turns):
    """Of each effort the fastest pass of all turns."""
    best = {}
    for points in turns:
        for p in points:
            if p["effort"] not in best or p["qps"] > best[p["effort"]]["qps"]:
                best[p["effort"]] = p
    return sorted(best.values(), key=lambda p: p["recall"])


def at(points, recall, key):
    """Speed at a recall, along the sweep; None when it is not reached."""
    value = (lambda p: p["qps"]) if key == "qps" else (lambda p: 1 / p["median"])
    for a, b in zip(points, points[1:]):
        if a["recall"] < recall <= b["recall"]:
            return value(a) + (value(b) - value(a)) * (recall - a["recall"]) / (b["recall"] - a["recall"])
    return value(points[0]) if points and points[0]["recall"] >= recall else None


def cell(value, form="{:.0f}"):
    return "-" if value is None else form.format(value)


def report(sides, rows):
    heads = [f"{what} @{r:.2f}" for what in ("queries/s", "1/median") for r in RECALLS]
    print("| side | build s | bytes/vector | " + " | ".join(heads) + " |\n|" + "---|" * (3 + len(heads)))
    for name, side in sides.items():
        values = [cell(at(side["points"], r, key)) for key in ("qps", "median") for r in RECALLS]
        print(f"| {name} | {side['built']['build']:.1f} | {side['built']['bytes'] / rows:.0f} | " + " | ".join(values) + " |")
    for ours in (name for name in sides if name in OURS):
        print(f"\n{ours} ({sides[ours]['built'].get('what', '')}) over each peer\n\n| peer | " + " | ".join(heads) + " |\n|" +
              "---|" * (1 + len(heads)))
        for name, side in sides.items():
            if name in OURS:
                continue
            ratios = []
            for key in ("qps", "median"):
                for r in RECALLS:
                    a, b = at(sides[ours]["points"], r, key), at(side["points"], r, key)
                    ratios.append(cell(a / b if a and b else None, "{:.2f}"))
            print(f"| {name} | " + " | ".join(ratios) + " |")


def measure(options, folder):
    import numpy
    import faiss
    base, queries = load(options)
    exact = faiss.IndexFlatL2(base.shape[1])
    exact.add(base)
    truth = os.path.join(folder, "truth.npy")
    numpy.save(truth, exact.search(queries, K)[1].astype("int32"))
    rows, dim = base.shape
    del base, exact
    print(f"{rows} x {dim}, {len(queries)} queries, recall of the {K} nearest by squared distance, one query at a time on one "
          f"thread, built with {options.build_threads}\n", flush=True)
    wanted = options.only.split(",") if options.only else [*OURS, *PEERS]
    sides = []
    for name in wanted:
        try:
            sides.append(Ours(name, options, truth, folder) if name in OURS else Peer(name, options, truth))
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{name} cannot run here: {error}", file=sys.stderr)
    turns = {side.name: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            turns[side.name].append(side.turn())
    for side in sides:
        side.close()
    result = {side.name: {"built": side.built, "points": merge(turns[side.name])} for side in sides}
    report(result, rows)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"rows": rows, "dim": dim, "k": K, "rounds": options.rounds, "sides": result}, out, indent=1)


def interpreter(options):
    """One that has the peers: given, or of a virtual environment that is made when it is missing."""
    if options.python:
        return options.python
    python, stamp = os.path.join(options.venv, "bin", "python"), os.path.join(options.venv, "installed")
    wanted = (HERE / "requirements.txt").read_text()
    if not os.path.exists(stamp) or open(stamp).read() != wanted:
        subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(HERE / "requirements.txt")], check=True)
        with open(stamp, "w") as out:
            out.write(wanted)
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build")
    parser.add_argument("--dir", help="folder of base.npy and query.npy (default: made from photographs below build/)")
    parser.add_argument("--python")
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-ann"))
    parser.add_argument("--rows", type=int, default=0, help="the first N vectors only")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--truth", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    if not options.build:
        parser.error("--build is wanted")
    python = interpreter(options)
    if os.environ.get("LIKENESS_ANN_PYTHON") != python:
        os.environ["LIKENESS_ANN_PYTHON"] = python
        os.execv(python, [python, *sys.argv])
    options.python = python
    if not options.dir:
        options.dir = str(HERE.parents[1] / "build" / "sift-vectors")
        if not os.path.exists(os.path.join(options.dir, "query.npy")):
            subprocess.run([str(HERE.parents[1] / "tools" / "vectors" / "sift.py"), options.dir], check=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, folder)


if __name__ == "__main__":
    main()
