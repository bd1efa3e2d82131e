"""Files of vectors and the benchmarks from outside."""
import random
import struct
import unittest

from common import Case, run, run_json

DIM, ROWS, QUERIES = 16, 3000, 40


def write_fvecs(path, rows):
    path.write_bytes(b"".join(struct.pack(f"<i{DIM}f", DIM, *row) for row in rows))


class Vectors(Case):
    def setUp(self):
        super().setUp()
        rng = random.Random(3)
        centres = [[rng.gauss(0, 4) for _ in range(DIM)] for _ in range(30)]

        def draw(n):
            return [[rng.gauss(c, 1) for c in rng.choice(centres)] for _ in range(n)]

        self.base, self.queries = self.folder / "base.fvecs", self.folder / "queries.fvecs"
        write_fvecs(self.base, draw(ROWS))
        write_fvecs(self.queries, draw(QUERIES))

    def bench(self, *more, **options):
        return run_json("bench", "ann", "--base", self.base, "--queries", self.queries, "--quiet", *more, **options)

    def test_vectors_survive_the_way_through_every_format(self):
        last = self.base
        for name in ("a.npy", "b.fbin", "c.npy", "d.fvecs"):
            run("convert", last, self.folder / name, "--quiet")
            last = self.folder / name
        self.assertEqual(last.read_bytes(), self.base.read_bytes())

    def test_converting_what_does_not_fit_names_the_row_and_leaves_nothing(self):
        done = run("convert", self.base, self.folder / "x.u8bin", "--quiet", status=1)
        self.assertIn("row 0", done.stderr)
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"base.fvecs", "queries.fvecs"})

    def test_a_cut_file_is_refused_by_name(self):
        self.base.write_bytes(self.base.read_bytes()[:-3])
        self.assertIn("base.fvecs", run("convert", self.base, self.folder / "x.npy", status=1).stderr)

    def test_every_kind_of_index_finds_what_is_there(self):
        for kind in ("flat", "graph", "partitioned", "auto"):
            for metric in ("l2", "ip", "cosine"):
                result = self.bench("--type", kind, "--metric", metric, "--threads", "2")
                self.assertGreater(max(p["recall"] for p in result["points"]), 0.9, (kind, metric))
                self.assertEqual((result["vectors"], result["dim"]), (ROWS, DIM))

    def test_a_saved_index_is_searched_without_building(self):
        index = self.folder / "x.index"
        built = self.bench("--type", "partitioned", "--file", index, "--efforts", "5,50")
        opened = self.bench("--type", "partitioned", "--open", index, "--efforts", "5,50")
        self.assertEqual([p["recall"] for p in built["points"]], [p["recall"] for p in opened["points"]])
        self.assertEqual(index.stat().st_size, opened["disk_bytes"])
        index.write_bytes(index.read_bytes()[:-1])
        self.assertIn("x.index", run("bench", "ann", "--base", self.base, "--queries", self.queries, "--type", "partitioned",
                                     "--open", index, status=1).stderr)

    def test_a_wanted_recall_gives_one_point(self):
        result = self.bench("--type", "partitioned", "--recall", "0.9")
        self.assertEqual(len(result["points"]), 1)
        self.assertGreaterEqual(result["tuned_recall"], 0.9)

    def test_wrong_use_says_what_is_wanted(self):
        for arguments in (("bench",), ("bench", "ann"), ("bench", "ann", "--base", "a.npy", "--queries", "b.npy", "--metric", "l3"),
                          ("convert", "a.npy"), ("bench", "ann", "--base", "a", "--queries", "b", "--recall", "2")):
            self.assertIn("wanted", run(*arguments, status=2).stderr)

    def test_kernels_are_timed_in_every_variant(self):
        kernels = run_json("bench", "kernels", "--dim", "20", "--rows", "64")["kernels"]
        self.assertIn("plain", {k["variant"] for k in kernels})
        self.assertTrue(all(k["GBps"] > 0 for k in kernels))


if __name__ == "__main__":
    unittest.main()
