"""The page in a real browser. Screenshots go to $LIKENESS_SCREENSHOTS if that is set."""
import os
import pathlib
import tempfile
import unittest

from playwright.sync_api import expect, sync_playwright

from common import SHAPES, Server, logo, logos, run

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="likeness-e2e-")
        cls.folder = pathlib.Path(cls.holder.name)
        collection = cls.folder / "logos.lk"
        run("index", logos(cls.folder / "logos"), "--into", collection, "-q")
        cls.server = Server(collection)
        cls.server.__enter__()
        cls.playwright = sync_playwright().start()
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        cls.server.__exit__()
        cls.holder.cleanup()

    def open(self, width=1280, height=900, **options):
        page = self.browser.new_page(viewport={"width": width, "height": height}, **options)
        self.addCleanup(page.close)
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(self.server.url)
        expect(page.locator("#results li")).to_have_count(24)
        return page

    def shoot(self, page, name):
        folder = os.environ.get("LIKENESS_SCREENSHOTS")
        if folder:
            page.screenshot(path=f"{folder}/{name}.png")

    def upload(self, page, shape):
        path = self.folder / f"{shape}-query.svg"
        logo(path, shape, 4)
        page.set_input_files("#file", str(path))
        expect(page.locator("#status")).to_contain_text("most similar")

    def labels(self, page, n):
        return [page.locator("#results .name").nth(i).inner_text() for i in range(n)]

    def test_uploaded_logo_shows_its_siblings_first(self):
        page = self.open()
        for shape in ("bolt", "leaf"):
            self.upload(page, shape)
            self.assertEqual(self.labels(page, 3), [shape] * 3)
        expect(page.locator("#preview")).to_be_visible()
        self.shoot(page, "upload-wide")
        self.assertEqual(self.errors, [])

    def test_result_becomes_the_next_query_and_back_returns(self):
        page = self.open()
        page.locator("#results a").first.click()
        expect(page.locator("#status")).to_contain_text("most similar")
        first = page.locator("#title").inner_text()
        self.assertIn(first, SHAPES)
        self.assertEqual(self.labels(page, 2), [first] * 2)
        page.locator("#results a").nth(10).click()
        expect(page.locator("#title")).not_to_have_text(first)
        page.go_back()
        expect(page.locator("#title")).to_have_text(first)
        page.get_by_text("Show the collection").click()
        expect(page.locator("#results li")).to_have_count(24)
        self.assertEqual(self.errors, [])

    def test_keyboard_alone_is_enough(self):
        page = self.open()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.className"), "skip")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        chosen = page.evaluate("document.activeElement.querySelector('.name').textContent")
        page.wait_for_timeout(200)  # skipping to the results must not fetch them anew: the focus would be lost
        self.assertEqual([url for url in asked if "/api/v1/images?" in url], [])
        page.keyboard.press("Enter")
        expect(page.locator("#title")).to_have_text(chosen)
        self.assertEqual(self.errors, [])

    def test_what_is_no_picture_gets_a_sentence(self):
        page = self.open()
        text = self.folder / "text.png"
        text.write_text("no picture")
        page.set_input_files("#file", str(text))
        expect(page.locator("#status")).to_contain_text("is not a picture")
        self.assertIn("error", page.locator("#status").get_attribute("class"))

    def test_narrow_screen_has_no_sideways_scrolling(self):
        for scheme in ("light", "dark"):
            page = self.open(390, 780, color_scheme=scheme)
            self.upload(page, "fish")
            self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 390)
            self.shoot(page, f"upload-narrow-{scheme}")


if __name__ == "__main__":
    unittest.main()
