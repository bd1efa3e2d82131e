"""`likeness eval` from outside, and its report in a real browser. Screenshots go to $LIKENESS_SCREENSHOTS if that is set."""
import csv
import json
import os
import pathlib
import re
import tempfile
import unittest

from playwright.sync_api import sync_playwright

from common import SHAPES, logos, run, run_json

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


class Evaluation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="likeness-e2e-")
        cls.folder = pathlib.Path(cls.holder.name)
        cls.collection = cls.folder / "logos.lk"
        run("index", logos(cls.folder / "logos"), "--into", cls.collection, "-q")

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    def path(self, name):
        return self.folder / name

    def test_every_metric_has_a_name_and_an_interval(self):
        out = run_json("eval", self.collection, "-k", "1,3")
        names = ["mAP", "MAP@R", "R-precision", "MRR", "nDCG", "nDCG-exp"]
        names += [f"{n}@{k}" for n in ("precision", "recall", "hit", "mAP", "map_cut", "nDCG", "nDCG-exp") for k in (1, 3)]
        self.assertEqual(sorted(out["intervals"]), sorted(names))
        for name in names:
            low, high = out["intervals"][name]
            self.assertTrue(0 <= low <= out[name] <= high <= 1, name)
        self.assertEqual(out, {**run_json("eval", self.collection, "-k", "1,3"), "seconds": out["seconds"]})  # the same again

    def test_written_run_and_judgements_give_the_same_figures(self):
        trec, qrels, table = self.path("own.trec"), self.path("own.qrels"), self.path("own.csv")
        own = run_json("eval", self.collection, "--write-run", trec, "--write-qrels", qrels, "--csv", table)
        read = run_json("eval", "--run", trec, "--qrels", qrels)
        for name in own["intervals"]:
            self.assertAlmostEqual(own[name], read[name], 12, name)
        with open(table) as f:
            rows = list(csv.DictReader(f))
        self.assertEqual(len(rows), 24)
        self.assertAlmostEqual(sum(float(r["mAP"]) for r in rows) / 24, own["mAP"], 12)

    def test_what_searches_with_options_find_is_what_is_judged(self):
        trec = self.path("reranked.trec")
        out = run_json("eval", self.collection, "--rerank", "kreciprocal", "--expand", "aqe", "--depth", "20", "--write-run", trec)
        ranked = {}
        with open(trec) as f:
            for line in f:
                query, _, item, *_ = line.split()
                ranked.setdefault(query, []).append(int(item))
        self.assertEqual(len(ranked), 24)
        changed = 0
        for query in ("1", "9", "24"):
            plain = run_json("search", self.collection, f"id:{query}", "-k", "20")
            changed += ranked[query] != [r["id"] for r in plain["results"]]
            found = run_json("search", self.collection, f"id:{query}", "-k", "20", "--rerank", "kreciprocal", "--expand", "aqe")
            self.assertEqual(ranked[query], [r["id"] for r in found["results"]])
        self.assertGreater(changed, 0)
        self.assertGreater(out["mAP"], 0.5)
        run("eval", self.collection, "--rerank", "magic", status=2)
        run("eval", self.collection, "--rerank", "kreciprocal", "--gallery", "label=star", status=1)

    def worse_run(self):
        """The collection's own ranking with every query's first two results at the end."""
        trec, qrels, worse = self.path("a.trec"), self.path("a.qrels"), self.path("worse.trec")
        run("eval", self.collection, "--write-run", trec, "--write-qrels", qrels, "-q")
        with open(trec) as f, open(worse, "w") as out:
            for line in f:
                query, _, item, rank, score, tag = line.split()
                out.write(f"{query} Q0 {item} {rank} {float(score) - (9 if int(rank) < 3 else 0):.6f} {tag}\n")
        return trec, qrels, worse

    def test_runs_are_compared_query_by_query(self):
        trec, qrels, worse = self.worse_run()
        out = run_json("eval", "--run", trec, "--run", worse, "--qrels", qrels)
        self.assertEqual([r["run"] for r in out["runs"]], ["a.trec", "worse.trec"])
        change = out["comparisons"][0]["metrics"]["mAP"]
        self.assertLess(change["interval"][1], 0)
        self.assertLess(change["p_randomisation"], 0.01)
        self.assertEqual((change["better"], change["worse"]), (0, 24))
        text = run("eval", "--run", trec, "--run", worse, "--qrels", qrels).stdout
        self.assertRegex(text, r"worse\.trec compared with a\.trec")

    def test_difficulty_in_the_truth_gives_the_revisited_set_ups(self):
        truth = self.path("logos") / "revisited.csv"
        rows = ["query,relevant,difficulty"]
        for s in SHAPES:
            rows += [f"{s}-0.svg,{s}-1.svg,easy", f"{s}-0.svg,{s}-2.svg,hard"]
        truth.write_text("\n".join(rows) + "\n")
        out = run_json("eval", self.collection, "--truth", truth, "-k", "1,5")
        self.assertEqual(out["queries"], 8)
        self.assertEqual(sorted(out["revisited"]), ["easy", "hard", "medium"])
        self.assertEqual(sorted(out["revisited"]["easy"]), ["mAP", "mP@1", "mP@5"])
        self.assertGreater(out["revisited"]["easy"]["mAP"], 0.8)

    def test_wrong_usage_says_what_is_wanted(self):
        for args in ((), ("--run", "x"), ("--qrels", "x"), (self.collection, "--vectors", "v.npy"), (self.collection, "--query", "split"),
                     (self.collection, "-k", "0"), ("--vectors", "v.npy", "--metric", "hamming")):
            self.assertRegex(run("eval", *args, status=2).stderr, "wanted")
        self.assertIn("not both", run("eval", self.collection, "--truth", "a", "--qrels", "b", status=1).stderr)
        self.assertIn("nothing.npy", run("eval", "--vectors", self.path("nothing.npy"), "--labels", "l.csv", status=1).stderr)

    # ---- the report ----

    def report(self):
        folder = self.path("report")
        _, _, worse = self.worse_run()
        run("eval", self.collection, "--run", worse, "--html", folder, "-q")
        return folder

    def open(self, browser, folder, width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, color_scheme=scheme,
                                      reduced_motion="reduce")
        page = context.new_page()
        self.problems = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith("file:") else self.problems.append(r.url))
        page.goto(f"file://{folder}/index.html")
        return page

    def test_report_opens_from_disk_on_wide_and_narrow_screens(self):
        folder = self.report()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark")):
                page = self.open(browser, folder, width, scheme)
                self.assertEqual(page.locator("section").evaluate_all("all => all.map(s => s.id)"),
                                 ["summary", "metrics", "curves", "confusion", "worsened", "worst", "best"])
                self.assertEqual(page.evaluate("document.documentElement.scrollWidth - innerWidth"), 0, f"{width} px: it scrolls sideways")
                self.assertEqual(page.locator(".chart svg[role=img]").count(), 5)
                self.check_pictures(page)
                page.locator(".chart").first.scroll_into_view_if_needed()
                box = page.locator(".chart svg[role=img]").first.bounding_box()
                page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50)
                self.assertRegex(page.locator(".chart").first.locator(".legend").inner_text(), r"at recall 0\.\d\d")
                if os.environ.get("LIKENESS_SCREENSHOTS"):
                    page.screenshot(path=f"{os.environ['LIKENESS_SCREENSHOTS']}/report-{width}-{scheme}.png", full_page=True)
                self.assertEqual(self.problems, [])
                page.context.close()
            browser.close()

    def check_pictures(self, page):
        """Every picture of every strip is there, right ones are marked as right, and both runs are shown."""
        page.locator(".strip img").evaluate_all("all => Promise.all(all.map(i => { i.loading = 'eager'; return i.decode(); }))")
        strip = page.locator("#worsened .strip").first
        self.assertEqual(strip.locator("h4").count(), 2)
        query = strip.locator("figure > figcaption .label").first.inner_text()
        self.assertIn(query, SHAPES)
        for tile in strip.locator("li").all():
            same = tile.locator(".label").inner_text() == query
            self.assertEqual(tile.locator(".tile.is-right").count(), int(same))
            self.assertEqual(tile.locator(".tile .hidden").inner_text(), "right" if same else "wrong")

    def test_report_shows_the_figures_of_the_evaluation(self):
        folder = self.report()
        data = json.loads((folder / "report.json").read_text())
        own = run_json("eval", self.collection)
        self.assertAlmostEqual(data["runs"][0]["means"]["mAP"][0], own["mAP"], 5)
        self.assertEqual(sum(data["runs"][0]["ap"]), 24)
        self.assertAlmostEqual(sum(data["distribution"]["right"]), 1, 4)
        self.assertAlmostEqual(sum(data["distribution"]["wrong"]), 1, 4)
        confusion = data["confusion"]
        self.assertEqual(confusion["right"] + confusion["wrong"], 24)
        self.assertAlmostEqual(confusion["right"] / 24, own["hit@1"], 12)
        page = (folder / "index.html").read_text()
        self.assertIsNone(re.search(r"(src|href)=\"?(https?:)?//", page))


if __name__ == "__main__":
    unittest.main()
