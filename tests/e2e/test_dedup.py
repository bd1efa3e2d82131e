"""Duplicates, and collections as plain files, from outside."""
import csv
import shutil
import unittest

from common import Case, logos, run, run_json


class Duplicates(Case):
    def setUp(self):
        super().setUp()
        self.pictures, self.collection = self.folder / "logos", self.folder / "logos.lk"
        logos(self.pictures, 3)
        for i in range(3):
            shutil.copy(self.pictures / "ring-1.svg", self.pictures / f"ring-copy-{i}.svg")
        shutil.copy(self.pictures / "star-0.svg", self.pictures / "star-copy.svg")
        run("index", self.pictures, "--into", self.collection, "-q")

    def names(self, *options):
        return [[r["path"].rsplit("/", 1)[1] for r in group]
                for group in run_json("dedup", self.collection, *options, "-q")["groups"]]

    def test_copies_are_one_group_the_largest_first(self):
        groups = self.names("--within", 0.0001)
        self.assertEqual([sorted(g) for g in groups],
                         [["ring-1.svg", "ring-copy-0.svg", "ring-copy-1.svg", "ring-copy-2.svg"], ["star-0.svg", "star-copy.svg"]])
        self.assertEqual(groups, self.names("--within", 0.0001, "--exact"))
        self.assertEqual(len(self.names("--within", 2)[0]), 28)  # cosines are never further apart

    def test_an_index_finds_the_same_groups(self):
        exact = self.names("--within", 0.0001)
        for kind in ("graph", "partitioned"):
            run("index", self.pictures, "--into", self.collection, "--index", kind, "--recall", 1, "-q")
            self.assertEqual(self.names("--within", 0.0001), exact)

    def test_listings_name_every_member(self):
        table, page = self.folder / "d.csv", self.folder / "d.html"
        done = run("dedup", self.collection, "--within", 0.0001, "--csv", table, "--html", page)
        self.assertIn("2 groups of 6 pictures", done.stdout)
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([r["group"] for r in rows], ["1"] * 4 + ["2"] * 2)
        self.assertTrue(all(float(r["score"]) > 0.9998 for r in rows))
        self.assertEqual(page.read_text().count("<section>"), 2)
        self.assertIn("star-copy.svg", run("dedup", self.collection, "--within", 0.0001).stdout)
        self.assertEqual(run_json("info", self.collection)["indexed"], 28)

    def test_a_part_of_the_collection_can_be_looked_at(self):
        groups = self.names("--within", 0.0001, "--where", "path like '%star%'")
        self.assertEqual([sorted(g) for g in groups], [["star-0.svg", "star-copy.svg"]])

    def test_wrong_options_are_explained(self):
        run("dedup", self.collection, "--within", "near", status=2)
        run("dedup", status=2)
        run("dedup", self.collection, "--where", "???", status=1)


class Transfer(Case):
    def test_what_goes_out_comes_in_again(self):
        pictures, first, second = self.folder / "logos", self.folder / "first.lk", self.folder / "second.lk"
        table, vectors = self.folder / "t.csv", self.folder / "v.npy"
        run("index", logos(pictures, 3), "--into", first, "-q")
        run("remove", first, "id:5")
        run("export", first, "--vectors", vectors, "--csv", table)
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), 23)
        self.assertNotIn("5", [r["id"] for r in rows])
        files = ["--vectors", vectors, "--csv", table, "--like", first]
        run("import", *files, "--into", second)
        run("verify", second)
        query = pictures / "ring-0.svg"
        found = [[(r["path"], r["score"], r["label"], r["width"]) for r in run_json("search", c, query, "-k", 22)["results"]]
                 for c in (first, second)]
        self.assertEqual(*found)
        run("import", *files, "--into", second, status=1)  # it is there already
        again = run_json("index", pictures / "logos.csv", "--into", second)  # sizes and times are known: one is new
        self.assertEqual((again["unchanged"], again["added"]), (23, 1))

    def test_a_table_that_does_not_fit_is_refused_with_its_line(self):
        pictures, first = self.folder / "logos", self.folder / "first.lk"
        table, vectors = self.folder / "t.csv", self.folder / "v.fvecs"
        run("index", logos(pictures, 1), "--into", first, "-q")
        run("export", first, "--vectors", vectors, "--csv", table)
        lines = table.read_text().splitlines()
        broken = {"short": lines[:-1], "long": lines + ['9,"/x.svg",1,1,,1,1,"{}"'],
                  "hash": lines[:2] + ['2,"/y.svg",1,1,zz,1,1,"{}"'] + lines[3:], "head": ["a,b,c,d,e,f,g,h"] + lines[1:]}
        for name, text in broken.items():
            table.write_text("\n".join(text) + "\n")
            done = run("import", "--vectors", vectors, "--csv", table, "--like", first, "--into", self.folder / f"{name}.lk", status=1)
            self.assertIn("t.csv", done.stderr, name)


if __name__ == "__main__":
    unittest.main()
