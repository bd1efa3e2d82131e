"""The HTTP API: its contract, and what it says to hostile requests."""
import base64
import http.client
import json
import pathlib
import socket
import threading
import time
import urllib.error
import urllib.request

import unittest

from common import SHAPES, Case, Server, huge_png, logo, logos, run


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.holder = tempfile.TemporaryDirectory(prefix="likeness-e2e-")
        cls.folder = pathlib.Path(cls.holder.name)
        cls.collection = cls.folder / "logos.lk"
        run("index", logos(cls.folder / "logos"), "--into", cls.collection, "-q")
        cls.server = Server(cls.collection, "--max-upload", str(1 << 20))
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.holder.cleanup()
        assert cls.server.status == 0, cls.server.status

    def ask(self, path, status=200, method="GET", body=None, headers=None):
        """The decoded body of an answer that must have this status, and its headers."""
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        data = answer.read()
        link.close()
        self.assertEqual(answer.status, status, data[:300])
        kind = answer.getheader("Content-Type")
        if kind == "application/json":
            data = json.loads(data)
            if status >= 400:
                self.assertEqual(data["error"]["code"], status)
                self.assertTrue(data["error"]["message"])
        return data, answer

    def test_libraries_are_loaded_before_it_serves(self):
        """An upgrade may replace their files afterwards."""
        with Server(self.collection) as server:
            loaded = pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()
        for name in "vips", "rsvg", "dnnl", "openblas", "vl":
            self.assertIn(f"/lib{name}", loaded)

    def test_filters_limit_what_is_found(self):
        label = self.ask("/api/v1/images?n=1")[0]["images"][0]["label"]
        found = self.ask(f"/api/v1/search?id=1&k=50&where=label%20%3D%20%27{label}%27")[0]["results"]
        self.assertTrue(found)
        self.assertEqual({r["label"] for r in found}, {label})
        everything = self.ask("/api/v1/search?id=1&k=50")[0]["results"]
        others = self.ask(f"/api/v1/search?id=1&k=50&exact=1&where=label%20!%3D%20%27{label}%27")[0]["results"]
        self.assertEqual([r["id"] for r in others], [r["id"] for r in everything if r["label"] != label])
        self.assertIn("at \"~ 3\"", self.ask("/api/v1/search?id=1&where=x%20~%203", status=400)[0]["error"]["message"])
        self.ask("/api/v1/search?id=1&exact=maybe", status=400)

    def test_info_tells_what_is_served(self):
        info, _ = self.ask("/api/v1/info")
        self.assertEqual((info["count"], info["metric"]), (24, "cosine"))

    def test_pages_list_every_picture_once(self):
        seen, after = [], 0
        while True:
            page, _ = self.ask(f"/api/v1/images?n=7&after={after}")
            seen += [image["id"] for image in page["images"]]
            after = page["next"]
            if not after:
                break
        self.assertEqual(len(seen), 24)
        self.assertEqual(seen, sorted(set(seen)))

    def test_uploaded_picture_finds_its_siblings(self):
        outside = self.folder / "query.svg"
        logo(outside, "leaf", 4)
        body = outside.read_bytes()
        raw, _ = self.ask("/api/v1/search?k=3", method="POST", body=body)
        self.assertEqual({r["label"] for r in raw["results"]}, {"leaf"})
        form = b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="q.svg"\r\n\r\n' + body + b"\r\n--frontier--\r\n"
        posted, _ = self.ask("/api/v1/search?k=3", method="POST", body=form,
                             headers={"Content-Type": "multipart/form-data; boundary=frontier"})
        self.assertEqual(posted["results"], raw["results"])

    def post_form(self, pictures, status=200, arguments=""):
        parts = b"".join(b'--frontier\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + p + b"\r\n" for p in pictures)
        return self.ask("/api/v1/search?" + arguments, status, "POST", parts + b"--frontier--\r\n",
                        {"Content-Type": "multipart/form-data; boundary=frontier"})

    def told(self, *arguments):
        """What the command finds: ids in order."""
        return [r["id"] for r in json.loads(run("search", self.collection, *arguments, "--json").stdout)["results"]]

    def test_range_finds_what_lies_within(self):
        everything = self.ask("/api/v1/search?id=5&k=200&exact=1")[0]["results"]
        score = everything[7]["score"]
        found = self.ask(f"/api/v1/search?id=5&within={1 - score + 1e-6}")[0]["results"]
        self.assertEqual([r["id"] for r in found], [r["id"] for r in everything if r["score"] >= score])
        self.assertEqual([r["id"] for r in found], self.told("id:5", "--within", str(1 - score + 1e-6)))
        self.assertEqual(len(self.ask("/api/v1/search?id=5&within=2")[0]["results"]), 23)
        self.assertEqual(len(self.ask("/api/v1/search?id=5&within=2&k=3")[0]["results"]), 3)
        self.assertEqual(self.ask("/api/v1/search?id=5&within=0")[0]["results"], [])

    def test_diverse_results_differ(self):
        plain = [r["id"] for r in self.ask("/api/v1/search?id=5&k=6")[0]["results"]]
        for arguments in (("diverse", "0.3"), ("trade", "0.6")):
            found = [r["id"] for r in self.ask("/api/v1/search?id=5&k=6&" + "=".join(arguments))[0]["results"]]
            self.assertEqual(found[0], plain[0])
            self.assertNotEqual(found, plain)
            self.assertEqual(found, self.told("id:5", "-k", "6", "--" + arguments[0], arguments[1]))

    def test_several_posted_pictures_are_one_query(self):
        files = [self.folder / "one.svg", self.folder / "two.svg"]
        logo(files[0], "leaf", 4)
        logo(files[1], list(SHAPES)[0], 4)
        pictures = [f.read_bytes() for f in files]
        for fuse in ("mean", "best"):
            found = [r["id"] for r in self.post_form(pictures, arguments=f"k=9&fuse={fuse}")[0]["results"]]
            self.assertEqual(found, self.told(*files, "-k", "9", "--fuse", fuse))
        self.assertEqual([r["id"] for r in self.post_form(pictures, arguments="k=9")[0]["results"]],
                         self.told(*files, "-k", "9", "--together"))
        self.assertEqual(len(self.post_form(pictures, arguments="k=9&rerank=geometric")[0]["results"]), 9)
        cropped = self.post_form(pictures, arguments="k=9&rerank=geometric&crop=20,20,60,60")[0]["results"]
        self.assertEqual([r["id"] for r in cropped],
                         self.told(*files, "-k", "9", "--together", "--rerank", "geometric", "--crop", "20,20,60,60"))
        for bad in range(3):
            answer, _ = self.post_form([b"no picture" if i == bad else pictures[0] for i in range(3)], 415)
            self.assertTrue(answer["error"]["message"].startswith(f"upload {bad + 1}: is not a picture"), answer)

    def test_picture_of_the_collection_is_never_its_own_result(self):
        answer, _ = self.ask("/api/v1/search?id=5&k=200")
        self.assertEqual(len(answer["results"]), 23)
        self.assertNotIn(5, [r["id"] for r in answer["results"]])
        self.assertEqual(set(answer["results"][0]), {"id", "path", "label", "labels", "width", "height", "score"})

    def test_pictures_are_served_as_rasters_only(self):
        data, answer = self.ask("/api/v1/images/1/file?size=64")
        self.assertEqual(answer.getheader("Content-Type"), "image/webp")
        self.assertEqual(data[:4] + data[8:12], b"RIFFWEBP")
        again, _ = self.ask("/api/v1/images/1/file?size=64")
        self.assertEqual(again, data)

    def test_page_and_its_parts_are_there_with_safe_headers(self):
        for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/app.css", "text/css"), ("/icon.svg", "image/svg")):
            _, answer = self.ask(path)
            self.assertTrue(answer.getheader("Content-Type").startswith(kind))
            self.assertIn("default-src 'self'", answer.getheader("Content-Security-Policy"))
            self.assertEqual(answer.getheader("X-Content-Type-Options"), "nosniff")
            self.ask(path, 304, headers={"If-None-Match": answer.getheader("ETag")})

    def test_health_and_metrics(self):
        self.assertEqual(self.ask("/healthz")[0], {"status": "ok"})
        self.assertIn(b"likeness_pictures 24", self.ask("/metrics")[0])

    def test_what_is_not_there_is_404(self):
        for path in ("/nothing", "/api/v1/images/9999", "/api/v1/images/9999/file", "/api/v1/search?id=9999", "/api/v1/images/-1",
                     "/api/v1/images/1x", "/api/v1/images/99999999999999999999999", "/../../../../etc/passwd",
                     "/..%2f..%2f..%2fetc%2fpasswd", "/api/v1/images/..%2f..%2fetc%2fpasswd/file"):
            self.ask(path, 404)

    def test_what_makes_no_sense_is_400(self):
        for path in ("/api/v1/search", "/api/v1/search?id=x", "/api/v1/search?id=1&k=0", "/api/v1/search?id=1&k=201",
                     "/api/v1/search?id=1&k=99999999999999999999", "/api/v1/images?n=0", "/api/v1/images?after=-2",
                     "/api/v1/images/1/file?size=1000000"):
            self.ask(path, 400)
        self.ask("/api/v1/search?crop=4294967296,0,10,10", 400, "POST", b"<svg xmlns='http://www.w3.org/2000/svg' width='50' height='50'/>")
        for argument, message in (("k=1001&within=0.5", "1 to 1000"), ("within=near", "within near: a number from 0"), ("within=-1", "within"),
                                  ("within=nan", "within"), ("diverse=x", "diverse x: a number"), ("trade=1.5", "from 0 to 1 is"),
                                  ("fuse=worst", "mean or best"), ("fuse=best&expand=aqe", "one query"),
                                  ("within=" + "x" * 3000, "x: a number from 0"), ("where=x%3D%27" + "y" * 3000, "a quote is not closed"),
                                  ("where=x%3D%ff", "where is not UTF-8"), ("within=%ff", "within is not UTF-8"), ("trade=0.5&rerank=kreciprocal", "one of them")):
            answer, _ = self.ask(f"/api/v1/search?id=1&{argument}", 400)
            self.assertIn(message, answer["error"]["message"])
        sixteen = ",".join(map(str, range(1, 17)))
        self.ask(f"/api/v1/search?fuse=best&diverse=0.1&id={sixteen}")
        answer, _ = self.ask(f"/api/v1/search?fuse=best&id={sixteen},17", 400)
        self.assertIn("up to 16 pictures", answer["error"]["message"])
        answer, _ = self.post_form([b"no picture"], 400, f"fuse=best&id={sixteen}")  # refused before it is read
        self.assertIn("up to 16 pictures", answer["error"]["message"])
        self.ask(f"/api/v1/search?id={sixteen},17")
        answer, _ = self.post_form([b"<svg/>"] * 17, 400)
        self.assertIn("more than 16 pictures", answer["error"]["message"])
        self.ask("/api/v1/search", 400, "POST", b"")
        self.ask("/api/v1/search", 400, "POST", b"no form at all", {"Content-Type": "multipart/form-data"})
        self.ask("/api/v1/search", 400, "POST", b'--frontier\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--frontier--\r\n',
                 {"Content-Type": "multipart/form-data; boundary=frontier"})

    def test_other_methods_are_405(self):
        for method in ("PUT", "DELETE", "PATCH"):
            self.ask("/api/v1/images/1", 405, method)
        self.ask("/api/v1/info", 405, "POST", b"x")

    def test_uploads_that_are_no_pictures_or_too_large_are_refused(self):
        answer, _ = self.ask("/api/v1/search", 415, "POST", b"hello, this is text")
        self.assertTrue(answer["error"]["message"].startswith("upload: is not a picture"), answer)
        self.ask("/api/v1/search", 415, "POST", b"%PDF-1.4 ...")
        self.ask("/api/v1/search", 413, "POST", bytes(2 << 20))
        picture = b"<svg xmlns='http://www.w3.org/2000/svg' width='50' height='50'/>".ljust(600000)
        self.post_form([picture], arguments="k=1")
        answer, _ = self.post_form([picture, picture], 413)  # each would pass: the limit is of both together
        self.assertIn("all its pictures together", answer["error"]["message"])
        bomb = self.folder / "bomb.png"
        huge_png(bomb, 12000)
        self.ask("/api/v1/search", 413, "POST", bomb.read_bytes())
        huge_png(bomb, 5000)
        large = bomb.read_bytes()
        self.post_form([large, large], arguments="k=1")  # 50 megapixels together
        answer, _ = self.post_form([large, picture[:100].strip(), large, large], 413)
        self.assertEqual(answer["error"]["message"], "upload 3: the pictures of one form have more than 50 megapixels together")
        drawing = (b"<svg xmlns='http://www.w3.org/2000/svg' width='50' height='50'><image width='50' height='50' href='data:image/png;base64,"
                   + base64.b64encode(large) + b"'/></svg>")
        self.post_form([drawing], arguments="k=1")
        answer, _ = self.post_form([drawing] * 3, 413)  # what a drawing embeds counts too
        self.assertIn("upload 1: pictures of 25000000 pixels embedded in the drawing", answer["error"]["message"])

    def test_sender_that_asks_first_need_not_send_what_is_refused(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
            s.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n")
            answer = s.recv(4096)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"), answer)
        self.assertIn(b'"code":413', answer)

    def test_bodies_of_all_connections_together_are_limited(self):
        # This server takes a mebibyte each, and sixteen of them at once.
        held = []
        for _ in range(16):
            s = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
            s.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n" + bytes(1048570))
            held.append(s)
        deadline, status = time.monotonic() + 20, 0
        while status != 503 and time.monotonic() < deadline:  # the last bytes may still be on their way
            link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
            link.request("POST", "/api/v1/search", bytes(1 << 20))
            status = link.getresponse().status
            link.close()
        self.assertEqual(status, 503)
        for s in held:
            s.close()
        while status == 503 and time.monotonic() < deadline + 20:
            link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
            link.request("POST", "/api/v1/search", bytes(1 << 20))
            status = link.getresponse().status
            link.close()
        self.assertEqual(status, 415)  # all of it was given back

    def test_strangers_pages_are_not_answered(self):
        body = b"<svg xmlns='http://www.w3.org/2000/svg' width='50' height='50'/>"
        self.ask("/api/v1/info", 403, headers={"Host": "evil.example"})
        self.ask("/api/v1/search", 403, "POST", body, {"Origin": "http://evil.example"})
        self.ask("/api/v1/search?k=1", 200, "POST", body, {"Origin": self.server.url})
        for host in ("localhost", f"localhost:{self.server.port}", "127.0.0.1:1"):
            self.ask("/api/v1/info", 200, headers={"Host": host})

    def test_outside_references_of_an_uploaded_svg_are_not_followed(self):
        secret = self.folder / "logos" / "star-0.svg"
        hostile = ('<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file://%s">]><svg xmlns="http://www.w3.org/2000/svg" '
                   'xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="100"><image width="100" height="100" '
                   'xlink:href="file://%s"/><text y="50">&x;</text></svg>' % (secret, secret)).encode()
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        link.request("POST", "/api/v1/search?k=1", hostile)
        answer = link.getresponse()
        data = json.loads(answer.read())
        link.close()
        if answer.status == 200:  # rendered without what it points at: then it looks like nothing, not like the star
            self.assertLess(data["results"][0]["score"], 0.9)

    def test_broken_and_slow_clients_do_not_stop_others(self):
        slow = []
        for _ in range(20):
            s = socket.create_connection(("127.0.0.1", self.server.port), timeout=5)
            s.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            slow.append(s)
        torn = socket.create_connection(("127.0.0.1", self.server.port), timeout=5)
        torn.sendall(b"\x00\xffGARBAGE\r\n\r\n")
        torn.close()
        self.assertEqual(self.ask("/api/v1/info")[0]["count"], 24)
        for s in slow:
            s.close()
        self.assertEqual(self.ask("/api/v1/info")[0]["count"], 24)

    def test_parallel_searches_agree_with_single_ones(self):
        expected = {i: self.ask(f"/api/v1/search?id={i}&k=5")[0]["results"] for i in range(1, 25)}
        wrong = []

        def work(first):
            for i in range(1, 25):
                number = (i + first) % 24 + 1
                if self.ask(f"/api/v1/search?id={number}&k=5")[0]["results"] != expected[number]:
                    wrong.append(number)
        threads = [threading.Thread(target=work, args=(t * 5,)) for t in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])


class Refreshing(Case):
    def test_new_pictures_are_found_without_a_restart(self):
        folder, collection = self.folder / "logos", self.folder / "logos.lk"
        run("index", logos(folder), "--into", collection, "-q")
        with Server(collection) as server:
            count = lambda: json.load(urllib.request.urlopen(server.url + "/api/v1/info"))["count"]
            self.assertEqual(count(), 24)
            logo(folder / "ring-9.svg", "ring", 5)
            run("index", folder, "--into", collection, "-q")
            for _ in range(100):
                if count() == 25:
                    break
                time.sleep(0.1)
            self.assertEqual(count(), 25)
        self.assertEqual(server.status, 0)

    def test_taken_port_is_said(self):
        collection = self.folder / "logos.lk"
        run("index", logos(self.folder / "logos"), "--into", collection, "-q")
        with Server(collection) as server:
            self.assertIn("is taken", run("serve", collection, "--port", server.port, status=1).stderr)


if __name__ == "__main__":
    unittest.main()
