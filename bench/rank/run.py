#!/usr/bin/env python3
"""Times k-reciprocal re-ranking beside the published algorithm in numpy, in the same run.

    bench/rank/run.py --build BUILD [--vectors V.npy] [--venv DIR] [--parts full,exact,local] [--json FILE]

full    3,000 queries x 16,000 gallery pictures (the size of Market-1501) from the vectors up, each side in a process of its
        own with all processors: seconds, peak memory, and whether the rankings are the same.
exact   both sides against the algorithm in float64 on 500 x 3,500, which tells whose rounding their differences are.
double  the same as full against the peer's algorithm in float64 (10 GiB), without vectors that are equal: whether
        the rankings are the same. Not by default.
local   every re-ranker for one query in collections of the --sizes with a table of 21 neighbours a picture, one thread, for
        several lengths of the shortlist: the time of re-ranking alone. Above a million the same million pictures stand in
        the collection and its table several times (as int8), each query meeting one copy at random.

geometric  searches of a --collection of pictures, plain and with geometric re-ranking of 100, whose local features are kept
        (`likeness index --local-features`, or an earlier run). Not by default.

V.npy holds 19,000 or more real embeddings, float32 [n, dim] (`likeness embed` writes such a file). Without it a generator
makes them: identities of 5 to 40 pictures around centres that form families, so that neighbours are confused as they are in
life. The local part always uses the generator. numpy is installed into DIR (made when missing).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

NUMPY = "numpy==2.4.6"
QUERIES, GALLERY, DIM = 3000, 16000, 256
TURNS = 25  # queries of the local form
MOST_MADE = 1000000  # generated pictures; larger collections hold them several times
here = pathlib.Path(__file__).resolve().parent


def enter_venv(directory):
    python = os.path.join(directory, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", NUMPY], check=True)
    os.environ["LIKENESS_RANK_VENV"] = directory
    os.execv(python, [python, *sys.argv])


def generate(rng, n, dim):
    """Rows of unit length in groups of one identity, and how large the groups are."""
    import numpy
    sizes = []
    while sum(sizes) < n:
        sizes.append(int(rng.integers(5, 41)))
    sizes[-1] -= sum(sizes) - n
    families = rng.standard_normal((len(sizes) // 8 + 1, dim), dtype=numpy.float32)
    out = numpy.empty((n, dim), numpy.float32)
    at = 0
    for group, size in enumerate(sizes):
        centre = families[group // 8] + 0.7 * rng.standard_normal(dim, dtype=numpy.float32)
        out[at:at + size] = centre + 1.0 * rng.standard_normal((size, dim), dtype=numpy.float32)
        at += size
    return out / numpy.linalg.norm(out, axis=1, keepdims=True), sizes


def side(name, options, vectors, out):
    """Runs one side in a process of its own; seconds as it says, peak memory and processor time as the system says."""
    child = subprocess.Popen([sys.executable, str(here / "run.py"), "--build", options.build, "--side", name, vectors, out],
                             stdout=subprocess.PIPE, text=True)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the side {name} failed")
    return {**json.loads(text), "peak_MiB": usage.ru_maxrss / 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def run_side(name, build, vectors, out):
    import numpy
    sys.path.insert(0, str(here))
    x = numpy.load(vectors)
    started = time.perf_counter()
    if name == "ours":
        import library
        result = library.Library(build).full(x, QUERIES)
        seconds = {"seconds": time.perf_counter() - started}
    else:
        import peer
        distances = peer.distance_matrix(x.astype(numpy.float64) if name == "peer64" else x)
        seconds = {"distance_seconds": time.perf_counter() - started}
        result = (peer.rerank_in_float64 if name == "peer64" else peer.rerank)(distances, QUERIES)
        seconds["seconds"] = time.perf_counter() - started
    numpy.save(out, result)
    print(json.dumps(seconds))


def compare(ours, theirs):
    """How far the two agree. An order counts as the same where the peer's own numbers, read in our order, never fall by more
    than 1e-5: it computes in float32, and sorts what is equal there as it comes."""
    import numpy
    same = worst = exact = 0
    for a, b in zip(ours, theirs):
        order = numpy.argsort(a, kind="stable")
        drop = -numpy.minimum(numpy.diff(b[order]), 0).min()
        same += drop <= 1e-5
        worst = max(worst, drop)
        exact += (order[:100] == numpy.argsort(b, kind="stable")[:100]).all()
    difference = numpy.abs(ours - theirs)
    return {"same_order": same / len(ours), "same_first_100": exact / len(ours), "largest_drop": float(worst),
            "largest_difference": float(difference.max()), "share_above_1e-5": float((difference > 1e-5).mean())}


def take_vectors(options, folder, distinct=False):
    """The file with the vectors of the full form. distinct: without those that another equals, among which any order is right."""
    import numpy
    rng = numpy.random.default_rng(1)
    x = numpy.load(options.vectors) if options.vectors else generate(rng, QUERIES + GALLERY, DIM)[0]
    if distinct:
        x = x[numpy.sort(numpy.unique(x, axis=0, return_index=True)[1])]
    if len(x) < QUERIES + GALLERY:
        raise SystemExit(f"{options.vectors}: {QUERIES + GALLERY} vectors are wanted")
    x = x[rng.permutation(len(x))[:QUERIES + GALLERY]]
    vectors = os.path.join(folder, "vectors.npy")
    numpy.save(vectors, x.astype(numpy.float32))
    return vectors, x.shape[1]


def measure_double(options, folder):
    """Ours beside the peer's algorithm in float64."""
    import numpy
    vectors, _ = take_vectors(options, folder, distinct=True)
    files = {name: os.path.join(folder, name + ".npy") for name in ("ours", "peer64")}
    for name, path in files.items():
        side(name, options, vectors, path)
    ours, theirs = numpy.load(files["ours"]), numpy.load(files["peer64"])
    report = compare(ours, theirs)
    report["rows_above_1e-5"] = int((numpy.abs(ours - theirs).max(1) > 1e-5).sum())
    print(f"full form against the same algorithm in float64: largest difference {report['largest_difference']:.1e}, above 1e-5 in "
          f"{report['rows_above_1e-5']} of {len(ours)} queries; same order for {report['same_order']:.2%}, first 100 identical for "
          f"{report['same_first_100']:.2%}", flush=True)
    return report


def measure_full(options, folder):
    import numpy
    vectors, dim = take_vectors(options, folder)
    files = {name: os.path.join(folder, name + ".npy") for name in ("ours", "peer")}
    turns = [side("ours", options, vectors, files["ours"]), side("peer", options, vectors, files["peer"]),
             side("ours", options, vectors, files["ours"])]
    ours = {"seconds": statistics.mean(t["seconds"] for t in turns[::2]), "peak_MiB": max(t["peak_MiB"] for t in turns[::2]),
            "cpu_seconds": min(t["cpu_seconds"] for t in turns[::2])}
    agreement = compare(numpy.load(files["ours"]), numpy.load(files["peer"]))
    report = {"n": QUERIES + GALLERY, "dim": dim, "source": options.vectors or "generator", "ours": ours, "peer": turns[1],
              "speedup": turns[1]["seconds"] / ours["seconds"],
              "speedup_without_their_distances": (turns[1]["seconds"] - turns[1]["distance_seconds"]) / ours["seconds"],
              "memory_share": ours["peak_MiB"] / turns[1]["peak_MiB"], **agreement}
    print(f"full form, {QUERIES} queries x {GALLERY} gallery, {dim} dimensions, {report['source']}")
    print(f"  ours  {ours['seconds']:8.2f} s  {ours['peak_MiB']:8.0f} MiB\n  peer  {turns[1]['seconds']:8.2f} s "
          f"({turns[1]['distance_seconds']:.1f} s of it distances)  {turns[1]['peak_MiB']:8.0f} MiB")
    print(f"  processor seconds {ours['cpu_seconds']:.1f} and {turns[1]['cpu_seconds']:.1f}")
    print(f"  {report['speedup']:.1f} times as fast ({report['speedup_without_their_distances']:.1f} if its distances were free), "
          f"{report['memory_share']:.3f} of the memory")
    print(f"  same order for {agreement['same_order']:.2%} of the queries, first 100 identical for {agreement['same_first_100']:.2%}; "
          f"largest difference {agreement['largest_difference']:.1e}, above 1e-5 in {agreement['share_above_1e-5']:.1e} of the cells",
          flush=True)
    return report


def measure_exact(options):
    """Whose numbers are right where the two sides differ: both against the algorithm in float64, on a set small enough for it."""
    import numpy
    sys.path[:0] = [str(here), str(here.parents[1] / "tools" / "reference")]
    import k_reciprocal
    import library
    import peer
    rng, n, queries = numpy.random.default_rng(1), 4000, 500
    x = numpy.load(options.vectors) if options.vectors else generate(rng, n, DIM)[0]
    x = x[rng.permutation(len(x))[:n]].astype(numpy.float32)
    truth = k_reciprocal.k_reciprocal(k_reciprocal.squared_distances(x), queries, 20, 6, 0.3)
    report = {}
    print(f"against float64, {queries} queries x {n - queries} gallery, {options.vectors or 'generator'}")
    for name, out in (("ours", library.Library(options.build).full(x, queries)), ("peer", peer.rerank(peer.distance_matrix(x), queries))):
        difference = abs(out - truth)
        report[name] = {"largest": float(difference.max()), "queries_above_1e-5": float((difference.max(1) > 1e-5).mean())}
        print(f"  {name}  largest difference {report[name]['largest']:.1e}, above 1e-5 in {report[name]['queries_above_1e-5']:.1%} "
              "of the queries", flush=True)
    return report


def lists_by_families(x, sizes, k):
    """Neighbours within each family of eight identities: the generator puts the nearest there. Exact search over a million would
    take an hour; recall against it is measured on a sample by the caller."""
    import numpy
    n = len(x)
    neighbours = numpy.full((n, k), 2**32 - 1, numpy.uint32)
    distances = numpy.zeros((n, k), numpy.float32)
    at = 0
    for first in range(0, len(sizes), 8):
        size = sum(sizes[first:first + 8])
        dots = x[at:at + size] @ x[at:at + size].T
        take = min(k, size)
        head = numpy.argpartition(-dots, take - 1, axis=1)[:, :take]
        near = numpy.take_along_axis(dots, head, 1)
        order = numpy.argsort(-near, axis=1, kind="stable")
        neighbours[at:at + size, :take] = numpy.take_along_axis(head, order, 1) + at
        distances[at:at + size, :take] = numpy.maximum(2 - 2 * numpy.take_along_axis(near, order, 1), 0)
        at += size
    return neighbours, distances


def kept(folder, name, make):
    """What make() returns, arrays, from the folder where they are there already."""
    import numpy
    paths = [os.path.join(folder, f"{name}-{i}.npy") for i in range(3)] if folder else []
    if folder and all(map(os.path.exists, paths)):
        return [numpy.load(p) for p in paths]
    out = make()
    for path, array in zip(paths, out):
        numpy.save(path, array)
    return out


def make_pictures(n):
    import numpy
    x, sizes = generate(numpy.random.default_rng(2), n, 128)
    return [x, *lists_by_families(x, sizes, 21)]


def measure_local(options):
    """Times of one query, each re-ranker, its defaults in searches unless said otherwise."""
    import numpy
    sys.path.insert(0, str(here))
    import library
    lib, rows = library.Library(options.build, 1), []
    for n in options.sizes:
        made = min(n, MOST_MADE)
        x, neighbours, distances = kept(options.keep, f"pictures-{made}", lambda: make_pictures(made))
        tiles, rng = n // made, numpy.random.default_rng(3)
        index = lib.flat_of(x.shape[1], 0 if tiles == 1 else 2)  # the copies as int8, to fit into memory
        for t in range(tiles):
            lib.flat_add(index, numpy.arange(made, dtype=numpy.uint64) + t * made, x)
        all_near = numpy.concatenate([neighbours + numpy.uint32(t * made) for t in range(tiles)]) if tiles > 1 else neighbours
        knn = lib.knn_from_lists(all_near, numpy.tile(distances, (tiles, 1)), numpy.full(n, 2.6, numpy.float32))
        del all_near
        chosen = rng.integers(0, made, TURNS)
        queries = x[chosen] + 0.5 * rng.standard_normal((TURNS, 128), dtype=numpy.float32) / numpy.sqrt(128)
        queries /= numpy.linalg.norm(queries, axis=1, keepdims=True)
        truth = numpy.argsort(-(x[chosen[:10]] @ x.T), axis=1)[:, :21]
        recall = statistics.mean(len(set(a) & set(b)) / 21 for a, b in zip(truth.tolist(), neighbours[chosen[:10]].tolist()))
        similar = x @ queries.T

        def alone(near, far, q):
            own = lib.knn(x[near], 21)
            lib.local(lib.shortlist(numpy.arange(len(near)), far, far[-1]), lib.source(own), 12, 2, 0.8)
            lib.knn_free(own)
        kinds = [("k-reciprocal 20, 6, 0.3", lambda near, far, q, at: lib.local(lib.shortlist(near + at, far, 2.6), lib.source(knn, index, queries[q]), 20, 6, 0.3)),
                 ("k-reciprocal 12, 2, 0.8", lambda near, far, q, at: lib.local(lib.shortlist(near + at, far, 2.6), lib.source(knn, index, queries[q]), 12, 2, 0.8)),
                 ("k-reciprocal, no table", lambda near, far, q, at: alone(near, far, q)),
                 ("diffusion", lambda near, far, q, at: lib.diffusion(lib.shortlist(near + at, far, 2.6), lib.source(knn), 20, 10, 3.0, 0.2)),
                 ("superglobal", lambda near, far, q, at: lib.superglobal(queries[q], x[near])),
                 ("expansion (of the search)", lambda near, far, q, at: lib.expand("alpha", queries[q], x[near[:2]], 10.0))]
        for length in (50, 100, 200):
            for name, work in kinds:
                times, busy = [], []
                for q in range(TURNS):
                    order = numpy.argpartition(-similar[:, q], length)[:length]
                    order = order[numpy.argsort(-similar[order, q], kind="stable")]
                    far = numpy.maximum(2 - 2 * similar[order, q], 0)
                    place = int(rng.integers(0, tiles)) * made
                    started, spent = time.perf_counter(), time.thread_time()
                    work(order, far, q, place)
                    times.append(time.perf_counter() - started)
                    busy.append(time.thread_time() - spent)
                rows.append({"collection": n, "shortlist": length, "method": name, "median_ms": 1000 * statistics.median(times),
                             "slowest_ms": 1000 * max(times), "cpu_ms": 1000 * statistics.median(busy), "table_recall": recall})
        lib.knn_free(knn)
        lib.c.lk_flat_free(index)
        del x, similar
    print("one query, one thread, without the search before it; milliseconds by the clock")
    print("| method | shortlist | " + " | ".join(f"{n:,}" for n in options.sizes) + " |\n|---|---|" + "---|" * len(options.sizes))
    for length in (50, 100, 200):
        for name in dict.fromkeys(r["method"] for r in rows):
            cells = [f"{r['median_ms']:.2f} (slowest {r['slowest_ms']:.1f})" for r in rows if r["method"] == name and r["shortlist"] == length]
            print(f"| {name} | {length} | " + " | ".join(cells) + " |")
    print(f"the table has {rows[-1]['table_recall']:.3f} of the true neighbours (sample of 10)", flush=True)
    return rows


def measure_geometric(options):
    """Searches by pictures of a collection without and with geometric re-ranking, local features being there already."""
    import ctypes
    import sqlite3
    sys.path.insert(0, str(here))
    import library
    rows = []
    ids = [r[0] for r in sqlite3.connect(os.path.join(options.collection, "catalog.db")).execute("SELECT id FROM images WHERE state=0 ORDER BY id")]
    for threads in (1, 2):
        lib = library.Library(options.build, threads)
        searcher = ctypes.c_void_p()
        lib.check(lib.c.lk_searcher_open(lib.context, options.collection.encode(), ctypes.byref(searcher)))
        medians = {}
        for kind in ("none", "geometric"):
            how, times = ctypes.create_string_buffer(4096), []  # lk_search_options, all defaults
            lib.check(lib.c.lk_rerank_parse(kind.encode(), how))
            for warm in (True, False):
                for id in ids[:: len(ids) // 200]:
                    found, started = ctypes.create_string_buffer(64), time.perf_counter()  # lk_results
                    lib.check(lib.c.lk_search_id(searcher, ctypes.c_int64(id), how, found))
                    if not warm:
                        times.append(1000 * (time.perf_counter() - started))
                    lib.c.lk_results_free(found)
            medians[kind] = statistics.median(times)
            rows.append({"threads": threads, "kind": kind, "median_ms": medians[kind], "mean_ms": statistics.mean(times), "slowest_ms": max(times)})
            print(f"search of {options.collection}, {threads} threads, re-ranking {kind}: median {medians[kind]:.2f} ms, mean "
                  f"{statistics.mean(times):.2f}, slowest {max(times):.2f}", flush=True)
        lib.c.lk_searcher_free(searcher)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--vectors")
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-rank"))
    parser.add_argument("--parts", default="full,exact,local")
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10000, 1000000, 10000000],
                        help="of the collections of the local part")
    parser.add_argument("--collection", help="of pictures, for the geometric part")
    parser.add_argument("--keep", help="folder for the generated pictures of the local part, for the next run")
    parser.add_argument("--json")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return run_side(options.side[0], options.build, *options.side[1:])
    if os.environ.get("LIKENESS_RANK_VENV") != options.venv:
        enter_venv(options.venv)
    report = {}
    if "full" in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report["full"] = measure_full(options, folder)
    if "double" in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report["double"] = measure_double(options, folder)
    if "exact" in options.parts.split(","):
        report["exact"] = measure_exact(options)
    if "local" in options.parts.split(","):
        report["local"] = measure_local(options)
    if "geometric" in options.parts.split(","):
        report["geometric"] = measure_geometric(options)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(report, out, indent=1)


if __name__ == "__main__":
    main()
