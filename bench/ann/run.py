#!/usr/bin/env python3
"""Measures our vector indexes beside the libraries that people use, on the same vectors, in the same run.

    bench/ann/run.py --build BUILD --dir DIR [--rows N] [--only ours-graph,hnswlib,...] [--rounds 3] [--keep FOLDER]

DIR holds base.npy and query.npy, float32 (tools/vectors/sift.py makes them from photographs, and is run when --dir is left
out). Every index is built by a process of its own with --build-threads threads and written to a file. Then all sides take
turns, --rounds times: a process opens the file and searches all queries one at a time on one thread at every effort. A
point's speed is that of the fastest pass of all. Recall is that of the 10 nearest, the truth is found exactly. Memory of a
peer is what its process grew by while it built: vectors given to it are not counted, copies of them are. Ours is the whole
index, which keeps no vectors besides. The tables give queries per second at equal recall, interpolated along each side's
sweep, and the ratio to each peer.

With --keep indexes and their figures stay in FOLDER, a later run finds them there, and --build-only stops after building:
so builds and searches can be measured at different times. A side that cannot run is left out, and named.

ours-graph-avx2 is the graph with AVX-512 switched off. The peers' versions are those of requirements.txt, installed into
a virtual environment in --venv unless --python names an interpreter that has them. SymphonyQG is called natively: it
takes part when --symphonyqg names a checkout of github.com/gouyt13/SymphonyQG.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from peers import K, PEERS

RECALLS = (0.90, 0.95, 0.99)
HERE = pathlib.Path(__file__).resolve().parent
OURS = ("ours-graph", "ours-graph-avx2", "ours-partitioned")


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def vectors(path, most):
    import numpy
    return numpy.array(numpy.load(path, mmap_mode="r")[:most or None], dtype="float32", order="C")  # a copy, in memory


def answer_of(command, **more):
    """What a command prints as JSON; some peers print besides, before it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    starts = [done.stdout.find(start) for start in ('{"build"', '[{"effort"', '{\n')]
    if done.returncode or max(starts) < 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.JSONDecoder().raw_decode(done.stdout[max(starts):])[0]


# ---- a peer's own processes ----

def child_build(options):
    base = vectors(options.base, options.rows)
    peer = PEERS[options.child](options.folder, base.shape[1])
    before, cpu, start = resident(), time.process_time(), time.perf_counter()
    peer.build(base, options.build_threads)
    figures = {"build": time.perf_counter() - start, "cpu": time.process_time() - cpu, "bytes": resident() - before}
    peer.save()
    print("\n" + json.dumps(figures), flush=True)


def child_search(options):
    import numpy
    queries = vectors(options.query, options.queries)
    truth = [set(map(int, row)) for row in numpy.load(options.truth)[:len(queries), :K]]
    peer = PEERS[options.child](options.folder, queries.shape[1])
    peer.load()
    os.sched_setaffinity(0, {options.cpu})
    points = []
    for effort in peer.efforts:
        one = peer.search(effort)
        best = None
        for _ in range(options.passes):
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
        if recall > 0.995:
            break
    print("\n" + json.dumps(points), flush=True)


# ---- the sides: build() gives its figures, turn() the points of one sweep ----

class Side:
    def __init__(self, name, options):
        self.name, self.options = name, options
        self.folder = os.path.join(options.keep, name)
        self.pin = ["taskset", "-c", str(options.cpu)]

    def built(self):
        """Its figures, when it is built already."""
        try:
            with open(os.path.join(self.folder, "built.json")) as file:
                figures = json.load(file)
        except OSError:
            return None
        if figures["rows"] != self.options.rows:
            raise RuntimeError(f"{self.folder} holds an index of {figures['rows']} vectors")
        return figures

    def prepare(self):
        figures = self.built()
        if figures is None:
            os.makedirs(self.folder, exist_ok=True)
            figures = {**self.build(), "rows": self.options.rows}
            with open(os.path.join(self.folder, "built.json"), "w") as file:
                json.dump(figures, file)
        self.figures = figures


class Peer(Side):
    def command(self, what):
        o = self.options
        return [o.python, __file__, "--child", self.name, "--what", what, "--folder", self.folder, "--base", o.base, "--query",
                o.query, "--truth", o.truth, "--queries", str(o.queries), "--passes", str(o.passes), "--build-threads",
                str(o.build_threads), "--cpu", str(o.cpu), "--rows", str(o.rows)]

    def build(self):
        return answer_of(self.command("build"))

    def turn(self):
        return answer_of(self.command("search"))


class SymphonyQG(Side):
    def program(self):
        o, program = self.options, os.path.join(self.folder, "symphonyqg")
        if not os.path.exists(program):
            flags = "-std=c++17 -Ofast -march=native -fopenmp -ftree-vectorize -DEIGEN_DONT_PARALLELIZE".split()
            subprocess.run(["g++", *flags, "-I", os.path.join(o.symphonyqg, "symqglib"), HERE / "symphonyqg.cpp", "-o", program],
                           check=True, stderr=subprocess.DEVNULL)
        return program

    def build(self):
        o = self.options
        return answer_of([self.program(), "build", o.base, os.path.join(self.folder, "index"), str(o.rows),
                          str(o.build_threads)])

    def turn(self):
        o = self.options
        return answer_of([*self.pin, self.program(), "search", o.query, o.truth, os.path.join(self.folder, "index"), str(o.rows),
                         str(o.queries), str(o.passes)], env={**os.environ, "OMP_NUM_THREADS": "1"})


class Ours(Side):
    def __init__(self, name, options):
        super().__init__(name, options)
        kind = name.split("-")[1]
        self.folder = os.path.join(options.keep, f"ours-{kind}")
        self.file = os.path.join(self.folder, "index")
        self.common = [os.path.join(options.build, "src", "cli", "likeness"), "bench", "ann", "--base", options.base, "--queries",
                       options.query, "--truth", options.truth, "--rows", str(options.rows), "--query-rows", str(options.queries),
                       "--type", kind, "--quiet", "--json"]
        self.environment = {**os.environ, **({"LIKENESS_CPU": "avx2"} if name.endswith("avx2") else {})}

    def build(self):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        built = answer_of([*self.common, "--threads", str(self.options.build_threads), "--search-threads", "1", "--efforts", "10",
                          "--file", self.file])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"build": built["build_seconds"], "bytes": built["memory_bytes"], "what": built["index"],
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

    def turn(self):
        found = answer_of([*self.pin, *self.common, "--threads", "1", "--open", self.file], env=self.environment)
        return [{"effort": str(p["effort"]), "recall": p["recall"], "qps": p["qps"], "median": p["median_seconds"]}
                for p in found["points"]]


def side_named(name, options):
    if name in OURS:
        return Ours(name, options)
    if name == "symphonyqg":
        return SymphonyQG(name, options)
    if name not in PEERS:
        raise RuntimeError(f"there is no {name}; there are {', '.join([*OURS, 'symphonyqg', *PEERS])}")
    return Peer(name, options)


# ---- the tables ----

def merge(turns):
    """Of each effort the fastest pass of all turns."""
    best = {}
    for points in turns:
        for p in points:
            if p["effort"] not in best or p["qps"] > best[p["effort"]]["qps"]:
                best[p["effort"]] = p
    return sorted(best.values(), key=lambda p: p["recall"])


def at(points, recall):
    """Queries per second at a recall, along the sweep; None when it is not reached."""
    for a, b in zip(points, points[1:]):
        if a["recall"] < recall <= b["recall"]:
            return a["qps"] + (b["qps"] - a["qps"]) * (recall - a["recall"]) / (b["recall"] - a["recall"])
    return points[0]["qps"] if points and points[0]["recall"] >= recall else None


def cell(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def row(values):
    print("| " + " | ".join(values) + " |")


def report(sides, rows):
    heads = [f"{r:.2f}" for r in RECALLS]
    row(["", "build, s", "of processor time", "bytes a vector", "queries/s at " + heads[0], *heads[1:]])
    row(["---"] * (4 + len(heads)))
    for name, side in sides.items():
        built = side["built"]
        row([name, f"{built['build']:.1f}", f"{built['cpu']:.0f}", f"{built['bytes'] / rows:,.0f}"] +
            [cell(at(side["points"], r)) for r in RECALLS])
    for ours in (name for name in sides if name in OURS):
        print(f"\n{ours} ({sides[ours]['built'].get('what', '')}) over each peer\n")
        row(["", "memory", "queries/s at " + heads[0], *heads[1:]])
        row(["---"] * (2 + len(heads)))
        for name, side in sides.items():
            if name in OURS:
                continue
            pairs = [(at(sides[ours]["points"], r), at(side["points"], r)) for r in RECALLS]
            row([name, f"{sides[ours]['built']['bytes'] / side['built']['bytes']:.2f}"] +
                [cell(a / b if a and b else None, "{:.2f}") for a, b in pairs])


def find_truth(options):
    """Also says how many vectors there are."""
    import faiss
    import numpy
    base = vectors(options.base, options.rows)
    options.rows, dim = base.shape
    options.truth = os.path.join(options.keep, f"truth-{options.rows}.npy")
    if not os.path.exists(options.truth):
        exact = faiss.IndexFlatL2(dim)
        exact.add(base)
        numpy.save(options.truth, exact.search(vectors(options.query, options.queries), K)[1].astype("int32"))
    return dim


def measure(options):
    dim = find_truth(options)
    wanted = options.only.split(",") if options.only else [*OURS, *(["symphonyqg"] if options.symphonyqg else []), *PEERS]
    sides = []
    for name in wanted:
        try:
            side = side_named(name, options)
            side.prepare()
            sides.append(side)
            print(f"{name}: {json.dumps(side.figures)}", file=sys.stderr, flush=True)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            print(f"{name} cannot be built here: {error}", file=sys.stderr, flush=True)
    if options.build_only:
        return
    turns = {side.name: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            try:
                turns[side.name].append(side.turn())
            except RuntimeError as error:
                print(f"{side.name} cannot be searched here: {error}", file=sys.stderr, flush=True)
    result = {s.name: {"built": s.figures, "points": merge(turns[s.name])} for s in sides if turns[s.name]}
    print(f"{options.rows:,} x {dim}, {options.queries:,} queries, recall of the {K} nearest by squared distance, one query at "
          f"a time on one thread, built with {options.build_threads}\n")
    report(result, options.rows)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"rows": options.rows, "dim": dim, "k": K, "rounds": options.rounds, "sides": result}, out, indent=1)


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
    parser.add_argument("--symphonyqg", help="a checkout of its repository")
    parser.add_argument("--rows", type=int, default=0, help="the first N vectors only")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2, help="of each turn at each effort")
    parser.add_argument("--build-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--keep", help="folder for the indexes and their figures")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--json")
    for hidden in ("--child", "--what", "--folder", "--base", "--query", "--truth"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child_build(options) if options.what == "build" else child_search(options)
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
    options.base, options.query = os.path.join(options.dir, "base.npy"), os.path.join(options.dir, "query.npy")
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        os.makedirs(options.keep, exist_ok=True)
        measure(options)


if __name__ == "__main__":
    main()
