#include "embed/neural_files.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const files[] = {
    "config.json", "preprocessor_config.json", "model.safetensors",       "tokenizer.json", "vocab.json",
    "merges.txt",  "tokenizer_config.json",    "special_tokens_map.json", "spiece.model"};
enum { FILES = sizeof files / sizeof *files, HASHED = 3 };

lk_status lk_neural_files_hash(const char *directory, lk_hash128 *out)
{
    lk_hash128 each[HASHED] = {0};
    for (int i = 0; i < HASHED; i++) {
        lk_map map;
        char *path = lk_path_join(directory, files[i]);
        if (!path) return lk_fail_memory(directory);
        bool there = lk_path_exists(path);
        lk_status s = there ? lk_map_open(path, &map) : LK_OK;
        free(path);
        if (s != LK_OK) return s;
        if (!there) continue;
        each[i] = lk_hash(map.bytes, map.size);
        lk_map_close(&map);
    }
    *out = lk_hash(each, sizeof each);
    return LK_OK;
}

static lk_status copy(const char *from, const char *to)
{
    enum { PIECE = 16 << 20 };
    lk_map map;
    lk_atomic_file *file;
    lk_status s = lk_map_open(from, &map);
    if (s != LK_OK) return s;
    s = lk_atomic_open(to, &file);
    if (s == LK_OK) {
        for (size_t at = 0; s == LK_OK && at < map.size; at += PIECE)
            s = lk_atomic_write(file, map.bytes + at, map.size - at < PIECE ? map.size - at : PIECE);
        if (s == LK_OK)
            s = lk_atomic_commit(file);
        else
            lk_atomic_abandon(file);
    }
    lk_map_close(&map);
    return s;
}

/* A link follows no symbolic link: the cache of a downloader is full of them. */
static lk_status bring(const char *from, const char *to)
{
    char *real = realpath(from, NULL);
    if (!real) return lk_fail_errno(errno, "%s: cannot be opened", from);
    unlink(to);
    lk_status s = link(real, to) == 0 ? LK_OK : copy(real, to);
    free(real);
    return s;
}

lk_status lk_neural_files_bring(const char *directory, const char *to)
{
    lk_status s = lk_make_dirs(to);
    for (int i = 0; s == LK_OK && i < FILES; i++) {
        char *from = lk_path_join(directory, files[i]), *there = lk_path_join(to, files[i]);
        if (!from || !there)
            s = lk_fail_memory(to);
        else if (lk_path_exists(from))
            s = bring(from, there);
        free(from);
        free(there);
    }
    return s;
}
