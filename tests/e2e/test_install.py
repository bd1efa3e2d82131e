"""An installation in a folder of its own: the program runs there, and a program of somebody else's builds and runs with it."""
import os
import pathlib
import shutil
import subprocess
import unittest

from common import LIKENESS, Case, logos

BUILD = pathlib.Path(LIKENESS).resolve().parents[2]

PROGRAM = r"""
#include <likeness/likeness.h>
#include <stdio.h>

static lk_status load(void *list, size_t i, const lk_image_options *options, lk_image *out)
{
    return lk_image_load(lk_sources_at(list, i)->path, options, out);
}

int main(int argc, char **argv)
{
    lk_context *context = NULL;
    lk_source_list *list = NULL;
    lk_embedder *embedder = NULL;
    lk_collection *collection = NULL;
    lk_searcher *searcher = NULL;
    lk_image query;
    lk_results results;
    if (argc != 5 || lk_context_new(NULL, &context) || lk_sources_new(&list) || lk_sources_add_csv(list, argv[1]) ||
        lk_classical_train(context, NULL, lk_sources_count(list), load, list, &embedder) || lk_embedder_save(embedder, argv[2]))
        goto failed;
    lk_collection_config config = {.dim = lk_embedder_dim(embedder),
                                   .metric = LK_COSINE,
                                   .embedder_id = lk_embedder_id(embedder),
                                   .embedder_name = lk_embedder_name(embedder),
                                   .model_dir = argv[2]};
    if (lk_collection_create(argv[3], &config, &collection) || lk_ingest(context, collection, embedder, list, NULL, NULL))
        goto failed;
    lk_collection_close(collection);
    if (lk_searcher_open(context, argv[3], &searcher) || lk_query_image_load(searcher, argv[4], NULL, NULL, &query) ||
        lk_search_image(searcher, &query, NULL, &results))
        goto failed;
    for (size_t i = 0; i < results.count; i++) printf("%.4f %s\n", (double)results.items[i].score, results.items[i].label);
    lk_results_free(&results);
    lk_image_free(&query);
    lk_searcher_free(searcher);
    lk_embedder_free(embedder);
    lk_sources_free(list);
    lk_context_free(context);
    return 0;
failed:
    fprintf(stderr, "%s\n", lk_error_message());
    return 1;
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

    def test_program_of_somebody_else_builds_and_runs(self):
        source, program = self.folder / "other.c", self.folder / "other"
        source.write_text(PROGRAM)
        package = self.only("likeness.pc").parent
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "likeness"], capture_output=True, text=True, check=True, timeout=60,
                               env={**os.environ, "PKG_CONFIG_PATH": str(package), "PKG_CONFIG_SYSROOT_DIR": str(self.root)}).stdout
        built = subprocess.run(["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-pedantic", source, "-o", program, *flags.split()],
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(built.returncode, 0, built.stderr)
        csv = logos(self.folder / "logos")
        done = subprocess.run([program, csv, self.folder / "model", self.folder / "x.lk", self.folder / "logos" / "fish-0.svg"],
                              capture_output=True, text=True, timeout=300,
                              env={**self.without, "LD_LIBRARY_PATH": str(package.parent)})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[1] for line in lines[:3]], ["fish"] * 3, done.stdout)


if __name__ == "__main__":
    unittest.main()
