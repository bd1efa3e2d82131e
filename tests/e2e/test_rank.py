"""Re-ranking, expansion, feedback and fused queries from outside: the program and the HTTP API."""
import http.client
import json
import pathlib
import shutil
import tempfile
import unittest

from common import Case, Server, logo, logos, png, run, run_json

KINDS = ("kreciprocal", "diffusion", "superglobal", "geometric")


class Searching(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="likeness-e2e-")
        cls.folder = pathlib.Path(cls.holder.name)
        cls.collection = cls.folder / "logos.lk"
        run("index", logos(cls.folder / "logos", 5), "--into", cls.collection, "-q")

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    def search(self, *args):
        return run_json("search", self.collection, *args)["results"]

    def picture(self, name):
        return self.folder / "logos" / f"{name}.svg"

    def test_every_reranker_puts_the_siblings_first_and_says_what_it_saw(self):
        for kind in KINDS:
            found = self.search(self.picture("fish-1"), "-k", 39, "--rerank", kind, "--shortlist", 20)
            self.assertEqual([r["label"] for r in found[:4]], ["fish"] * 4, kind)
            self.assertEqual(len({r["id"] for r in found}), 39)
            seen = [r["reranked"] for r in found if "reranked" in r]
            self.assertEqual(seen, sorted(seen, reverse=kind != "kreciprocal"), kind)
            self.assertEqual(["reranked" in r for r in found], [True] * 20 + [False] * 19)

    def test_pictures_beyond_the_shortlist_stay_where_they_were(self):
        plain, ranked = self.search("id:7", "-k", 39), self.search("id:7", "-k", 39, "--rerank", "kreciprocal", "--shortlist", 10)
        self.assertEqual([r["id"] for r in plain[10:]], [r["id"] for r in ranked[10:]])
        self.assertEqual({r["id"] for r in plain[:10]}, {r["id"] for r in ranked[:10]})
        self.assertNotIn("reranked", plain[0])

    def test_none_changes_nothing(self):
        self.assertEqual(self.search("id:7"), self.search("id:7", "--rerank", "none", "--expand", "none"))

    def test_expansion_brings_the_family_nearer(self):
        plain = self.search(self.picture("leaf-0"), "-k", 4)
        for kind in ("aqe", "rank", "alpha"):
            joined = self.search(self.picture("leaf-0"), "-k", 4, "--expand", kind, "--expand-count", 2)
            self.assertEqual({r["label"] for r in joined}, {"leaf"})
            self.assertGreater(sum(r["score"] for r in joined), sum(r["score"] for r in plain))

    def test_several_pictures_search_as_one(self):
        found = self.search(self.picture("ring-0"), self.picture("bolt-0"), "--together", "-k", 8)
        self.assertEqual({r["label"] for r in found}, {"ring", "bolt"})
        self.assertNotIn(str(self.picture("ring-0")), [r["path"] for r in found])
        self.assertNotIn(str(self.picture("bolt-0")), [r["path"] for r in found])

    def test_the_best_of_several_pictures_counts(self):
        names = ("ring-0", "bolt-0")
        alone = [{r["id"]: r["score"] for r in self.search(self.picture(n), "-k", 39)} for n in names]
        found = self.search(*map(self.picture, names), "--fuse", "best", "-k", 38)
        self.assertEqual(len(found), 38)
        for r in found:
            self.assertAlmostEqual(r["score"], max(a.get(r["id"], -1) for a in alone), places=6)
        self.assertEqual([r["score"] for r in found], sorted((r["score"] for r in found), reverse=True))
        self.assertEqual(self.search(*map(self.picture, names), "--fuse", "mean"),
                         self.search(*map(self.picture, names), "--together"))

    def test_a_range_is_the_beginning_of_the_ranking(self):
        ranked = self.search("id:7", "-k", 39)
        for count in (1, 5, 20):
            bound = 1 - (ranked[count - 1]["score"] + ranked[count]["score"]) / 2
            self.assertEqual(self.search("id:7", "--within", bound), ranked[:count])
        self.assertEqual(self.search("id:7", "--within", bound, "-k", 3), ranked[:3])
        self.assertEqual(self.search("id:7", "--within", 0), [])
        few = self.search("id:7", "--within", bound, "--where", "label = ring")
        self.assertEqual(few, [r for r in ranked[:20] if r["label"] == "ring"])

    def test_results_that_differ(self):
        copies = self.folder / "copies.lk"
        more = self.folder / "more"
        shutil.copytree(self.folder / "logos", more, dirs_exist_ok=True)
        for i in range(3):
            shutil.copy(self.picture("ring-1"), more / f"copy-{i}.svg")
        run("index", more, "--into", copies, "-q")
        plain = run_json("search", copies, more / "ring-0.svg", "-k", 8)["results"]
        differ = run_json("search", copies, more / "ring-0.svg", "-k", 8, "--diverse", 0.001)["results"]
        self.assertEqual(sum("copy" in r["path"] or "ring-1" in r["path"] for r in plain), 4)
        self.assertEqual(sum("copy" in r["path"] or "ring-1" in r["path"] for r in differ), 1)
        self.assertEqual(len(differ), 8)
        traded = run_json("search", copies, more / "ring-0.svg", "-k", 8, "--trade", 0.7)["results"]
        self.assertEqual(traded[0], plain[0])
        shapes = lambda results: {pathlib.Path(r["path"]).stem.split("-")[0].replace("copy", "ring") for r in results}
        self.assertGreater(len(shapes(traded)), len(shapes(plain)))

    def test_feedback_moves_the_query_and_hides_what_was_wrong(self):
        plain = self.search(self.picture("ring-0"), "-k", 39)
        stars = [r["id"] for r in plain if r["label"] == "star"]
        wrong = plain[0]["id"]
        found = self.search(self.picture("ring-0"), "-k", 39, "--yes", ",".join(map(str, stars[:2])), "--no", f"id:{wrong}")
        self.assertNotIn(wrong, [r["id"] for r in found])
        rank = lambda results: [i for i, r in enumerate(results) if r["label"] == "star"]
        self.assertLess(max(rank(found)), max(rank(plain)))

    def test_html_page_takes_the_options_too(self):
        page = self.folder / "page.html"
        run("search", self.collection, self.picture("ring-0"), self.picture("ring-1"), "--together", "--rerank", "geometric", "--html", page)
        self.assertEqual(page.read_text().count("<section>"), 1)

    def test_wrong_options_are_explained(self):
        self.assertIn("kreciprocal", run("search", self.collection, "id:1", "--rerank", "magic", status=2).stderr)
        self.assertIn("alpha", run("search", self.collection, "id:1", "--expand", "magic", status=2).stderr)
        self.assertIn("--yes", run("search", self.collection, "id:1", "--yes", "1,x", status=2).stderr)
        self.assertIn("--within", run("search", self.collection, "id:1", "--within", "x", status=2).stderr)
        self.assertIn("--fuse", run("search", self.collection, "id:1", "id:2", "--fuse", "x", status=2).stderr)
        self.assertIn("--trade", run("search", self.collection, "id:1", "--trade", 2, status=2).stderr)
        run("search", self.collection, "id:1", "id:2", "--fuse", "best", "--rerank", "superglobal", status=1)
        self.assertIn("9999", run("search", self.collection, "id:1", "--yes", "9999", status=1).stderr)
        run("search", self.collection, "id:1", "id:2", status=2)

    def test_part_of_a_picture_is_searched_with_every_option(self):
        both = self.folder / "both.png"
        png(both, 120, 60, lambda x, y: (0, 0, 0) if 70 < x < 110 and 10 < y < 50 else (255, 255, 255))
        for kind in KINDS:
            self.assertEqual(len(self.search(both, "--crop", "60,0,60,60", "--rerank", kind)), 10)


class Tables(Case):
    def setUp(self):
        super().setUp()
        self.collection = self.folder / "logos.lk"
        run("index", logos(self.folder / "logos", 4), "--into", self.collection, "-q")

    def test_table_of_neighbours_is_used_until_the_collection_changes(self):
        run("neighbours", self.collection, "-k", 25)
        run("verify", self.collection)
        with_table = run("search", self.collection, "id:3", "--rerank", "kreciprocal", "--json")
        self.assertNotIn("neighbours", with_table.stderr)
        logo(self.folder / "logos" / "new.svg", "cross", 6)
        run("index", self.folder / "logos" / "new.svg", "--into", self.collection, "-q")
        stale = run("search", self.collection, "id:3", "--rerank", "kreciprocal", "--json")
        self.assertIn("likeness neighbours", stale.stderr)
        self.assertEqual(len(json.loads(stale.stdout)["results"]), 10)
        run("neighbours", self.collection, "-q")
        self.assertNotIn("neighbours", run("search", self.collection, "id:3", "--rerank", "diffusion", "--json").stderr)

    def test_damaged_table_is_told_and_left_aside(self):
        run("neighbours", self.collection, "-q")
        table = self.collection / "neighbours.knn"
        data = bytearray(table.read_bytes())
        data[-5] ^= 255
        table.write_bytes(data)
        done = run("search", self.collection, "id:3", "--rerank", "kreciprocal", "--json")
        self.assertIn("not used", done.stderr)
        self.assertEqual(len(json.loads(done.stdout)["results"]), 10)

    def test_augmented_copy_is_a_collection_of_its_own(self):
        into = self.folder / "augmented.lk"
        run("augment", self.collection, "--into", into, "-k", 2)
        run("verify", into)
        before, after = run_json("search", self.collection, "id:1", "-k", 3), run_json("search", into, "id:1", "-k", 3)
        self.assertEqual({r["label"] for r in before["results"]}, {r["label"] for r in after["results"]})
        self.assertGreater(after["results"][2]["score"], before["results"][2]["score"])
        self.assertIn("already", run("augment", self.collection, "--into", into, status=1).stderr)
        self.assertEqual([p.name for p in self.folder.iterdir() if "model" in p.name], [])
        logo(self.folder / "logos" / "more.svg", "cross", 7)
        self.assertEqual(run_json("index", self.folder / "logos" / "more.svg", "--into", into)["added"], 1)


class Matching(Case):
    def test_match_counts_and_draws_what_two_pictures_share(self):
        a, b, c = (self.folder / f"{name}.svg" for name in "abc")
        logo(a, "star", 0)
        logo(b, "star", 2)
        logo(c, "ring", 0)
        drawing = self.folder / "match.png"
        same, other = run_json("match", a, b, "--png", drawing), run_json("match", a, c)
        self.assertGreater(same["inliers"], 8)
        self.assertLess(other["inliers"], same["inliers"])
        self.assertEqual(sum(p["inlier"] for p in same["pairs"]), same["inliers"])
        self.assertEqual(drawing.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        page = self.folder / "match.html"
        run("match", a, b, "--html", page)
        text = page.read_text()
        self.assertIn("data:image/png;base64,", text)
        self.assertNotIn("http", text)
        self.assertIn(str(a), text)
        self.assertGreater(run_json("match", a, a, "--homography")["inliers"], same["inliers"])
        run("match", a, status=2)
        self.assertIn("missing.svg", run("match", a, self.folder / "missing.svg", status=1).stderr)


class Api(Case):
    def setUp(self):
        super().setUp()
        collection = self.folder / "logos.lk"
        run("index", logos(self.folder / "logos"), "--into", collection, "-q")
        self.server = Server(collection)
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)

    def ask(self, path, status=200, method="GET", body=None):
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        link.request(method, path, body)
        answer = link.getresponse()
        data = json.loads(answer.read())
        link.close()
        self.assertEqual(answer.status, status, data)
        return data

    def test_parameters_have_the_names_of_the_program(self):
        for kind in KINDS:
            found = self.ask(f"/api/v1/search?id=4&k=23&rerank={kind}&shortlist=8")["results"]
            self.assertEqual(["reranked" in r for r in found], [True] * 8 + [False] * 15, kind)
            self.assertEqual(found[0]["label"], found[1]["label"])
        plain = self.ask("/api/v1/search?id=4&k=23")["results"]
        marked = self.ask(f"/api/v1/search?id=4&k=23&no={plain[0]['id']},{plain[3]['id']}&yes={plain[1]['id']}&expand=alpha&expand-count=2")
        self.assertEqual(len(marked["results"]), 21)
        together = self.ask("/api/v1/search?id=1,4&k=200")["results"]
        self.assertEqual(len(together), 22)

    def test_posted_picture_may_be_cut_and_joined_with_others(self):
        picture = self.folder / "both.png"
        # Stripes beside a square: the part shows the square alone. (Of the square alone a cut would show the same content.)
        png(picture, 120, 60, lambda x, y: (0, 0, 0) if 10 < y < 50 and (70 < x < 110 or (10 < x < 50 and x // 6 % 2)) else (255, 255, 255))
        body = picture.read_bytes()
        whole = self.ask("/api/v1/search?k=5", method="POST", body=body)["results"]
        part = self.ask("/api/v1/search?k=5&crop=60,0,60,60", method="POST", body=body)["results"]
        joined = self.ask("/api/v1/search?k=5&id=2&rerank=geometric", method="POST", body=body)["results"]
        self.assertNotEqual([r["score"] for r in whole], [r["score"] for r in part])
        self.assertNotIn(2, [r["id"] for r in joined])

    def test_parameters_that_make_no_sense_are_400(self):
        for query in ("rerank=magic", "expand=magic", "shortlist=0", "shortlist=1001", "yes=x", "no=1,", "expand-count=0", "crop=1,2,3",
                      "crop=0,0,10,10"):
            self.ask("/api/v1/search?id=1&" + query, 400)
        self.ask("/api/v1/search?id=" + ",".join(["1"] * 65), 400)
        self.ask("/api/v1/search?id=1&yes=9999", 404)
        picture = self.folder / "small.png"
        png(picture, 20, 20, lambda x, y: (x, y, 0))
        self.ask("/api/v1/search?crop=10,10,20,20", 400, "POST", picture.read_bytes())


if __name__ == "__main__":
    unittest.main()
