"""An installation in a folder of its own: the program runs there, and a program of somebody else's builds and runs with it."""
import os
import pathlib
import platform
import shutil
import subprocess
import unittest

from common import LIKENESS, ROOT, Case, logo, logos
from test_cli import read_npy
from test_models import model

BUILD = pathlib.Path(LIKENESS).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "example.c"
EMBED = r"""
#include <likeness/likeness.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    lk_embedder *embedder;
    lk_image image;
    float vector[4096];
    if (argc != 3 || lk_embedder_open(argv[1], &embedder) || lk_embedder_dim(embedder) > 4096) return 2;
    lk_image_options options = lk_embedder_image_options(embedder);
    if (lk_image_load(argv[2], &options, &image)) return 3;
    lk_status s = lk_embedder_embed(embedder, &image, 1, vector);
    if (s) printf("%s: %s\n", lk_status_name(s), lk_error_message());
    for (size_t i = 0; !s && i < lk_embedder_dim(embedder); i++) printf("%.17g\n", (double)vector[i]);
    lk_image_free(&image);
    lk_embedder_free(embedder);
    return s != LK_OK;
}
"""


@unittest.skipUnless(shutil.which("meson") and shutil.which("pkg-config") and (BUILD / "build.ninja").exists(),
                     "wants a build folder, meson and pkg-config")
class Installed(Case):
    def setUp(self):
        super().setUp()
        self.root = self.folder / "staged"
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"], env={**os.environ, "DESTDIR": str(self.root)},
                       check=True, capture_output=True, timeout=300)
        self.without = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}

    def only(self, pattern):
        found = list(self.root.rglob(pattern))
        self.assertEqual(len(found), 1, found)
        return found[0]

    def test_program_runs_where_it_was_staged(self):
        done = subprocess.run([self.only("bin/likeness"), "--version"], capture_output=True, text=True, env=self.without, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def build(self, source, program):
        """Builds a program with what was staged; returns the environment that it runs in."""
        package = self.only("likeness.pc").parent
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "likeness"], capture_output=True, text=True, check=True, timeout=60,
                               env={**os.environ, "PKG_CONFIG_PATH": str(package), "PKG_CONFIG_SYSROOT_DIR": str(self.root)}).stdout
        built = subprocess.run(["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-pedantic", source, "-o", program, *flags.split()],
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(built.returncode, 0, built.stderr)
        return {**self.without, "LD_LIBRARY_PATH": str(package.parent)}

    def test_example_builds_and_runs_with_it(self):
        program = self.folder / "example"
        env = self.build(EXAMPLE, program)
        csv = logos(self.folder / "logos")
        done = subprocess.run([program, csv, self.folder / "model", self.folder / "x.lk", self.folder / "logos" / "fish-0.svg"],
                              capture_output=True, text=True, timeout=300, env=env)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[1] for line in lines[:3]], ["fish"] * 3, done.stdout)

    def test_network_finds_onednn_where_it_was_staged(self):
        network, picture, listed, out = (self.folder / n for n in ("network", "fish.svg", "list", "v.npy"))
        source, program = self.folder / "embed.c", self.folder / "embed"
        model(network, "ResNet, bottlenecks")
        logo(picture, "fish")
        listed.write_text(f"{picture}\n")
        source.write_text(EMBED)
        env = self.build(source, program)

        def embed():
            staged = subprocess.run([self.only("bin/likeness"), "embed", "--model", network, "--out", out, listed, "-q"],
                                    capture_output=True, text=True, env=self.without, timeout=60)
            ours = subprocess.run([program, network, picture], capture_output=True, text=True, env=env, timeout=60)
            return staged, ours
        staged, ours = embed()
        self.assertEqual((staged.returncode, staged.stderr, ours.returncode), (0, "", 0), ours.stdout)
        self.assertEqual(read_npy(out), [tuple(float(line) for line in ours.stdout.split())])
        library = list(self.root.rglob("libdnnl.so.3"))
        if not library or platform.machine() not in ("x86_64", "aarch64"):
            return  # the system has one, or it is linked
        library[0].unlink()
        staged, ours = embed()  # neither can have taken another
        self.assertEqual((staged.returncode, ours.returncode), (1, 1))
        for said in staged.stderr, ours.stdout:
            self.assertIn("libdnnl.so.3", said)
        self.assertTrue(ours.stdout.startswith("unsupported"), ours.stdout)


if __name__ == "__main__":
    unittest.main()
