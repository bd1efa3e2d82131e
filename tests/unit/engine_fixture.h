/* Pictures of simple shapes, an embedder learnt from them and collections of both, for the tests of the engine. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <likeness/likeness.h>

#include "shapes.h"
#include "unit.h"

#include <sys/stat.h>

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

/* "<folder of the test>/<name>"; one of the last 16 is overwritten at each call. */
static inline char *at(void **state, const char *name)
{
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s%s%s", (char *)*state, *name ? "/" : "", name);
    return path;
}

static inline void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static inline lk_source_list *new_list(void)
{
    lk_source_list *list;
    OK(lk_sources_new(&list));
    return list;
}

static inline void write_picture(const char *path, int shape, int variant)
{
    lk_image image = draw(shapes[shape], 64, 64, variant);
    uint8_t *bytes;
    size_t size;
    OK(lk_image_encode(&image, LK_FORMAT_PNG, 1, &bytes, &size));
    write_bytes(path, bytes, size);
    free(bytes);
    lk_image_free(&image);
}

static inline lk_status hand_out(void *user, size_t index, const lk_image_options *options, lk_image *out)
{
    (void)user, (void)options;
    *out = draw(shapes[index % SHAPES], 64, 64, (int)(index / SHAPES));
    return LK_OK;
}

static inline lk_embedder *train(uint64_t seed)
{
    lk_classical_options options = {.kind = LK_CLASSICAL_VLAD, .words = 3, .dim = 8, .seed = seed};
    lk_embedder *embedder;
    OK(lk_classical_train(NULL, &options, 2 * SHAPES, hand_out, NULL, &embedder));
    return embedder;
}

/* p/<shape><variant>.png, PICTURES of them, all of different bytes. */
static inline void write_pictures(void **state)
{
    char name[32];
    mkdir(at(state, "p"), 0777);
    for (int i = 0; i < PICTURES; i++) {
        snprintf(name, sizeof name, "p/%c%d.png", 'a' + i % SHAPES, i / SHAPES);
        write_picture(at(state, name), i % SHAPES, i / SHAPES);
    }
}

static inline lk_collection *new_collection(void **state, const char *name, const lk_embedder *embedder)
{
    char *model = at(state, "new-model");
    OK(lk_embedder_save(embedder, model));
    lk_collection_config config = {.dim = lk_embedder_dim(embedder),
                                   .embedder_id = lk_embedder_id(embedder),
                                   .embedder_name = lk_embedder_name(embedder),
                                   .model_dir = model};
    lk_collection *c;
    OK(lk_collection_create(at(state, name), &config, &c));
    return c;
}

static inline lk_ingest_report ingest(void **state, lk_collection *c, const lk_embedder *embedder, int threads,
                                      const char *from, const lk_ingest_options *options)
{
    lk_context *context;
    lk_context_options with = {.threads = threads};
    lk_ingest_report report;
    OK(lk_context_new(&with, &context));
    lk_source_list *list = new_list();
    if (strstr(from, ".csv"))
        OK(lk_sources_add_csv(list, at(state, from)));
    else
        OK(lk_sources_add(list, at(state, from)));
    OK(lk_ingest(context, c, embedder, list, options, &report));
    lk_sources_free(list);
    lk_context_free(context);
    return report;
}

static inline void expect(lk_ingest_report r, uint64_t added, uint64_t updated, uint64_t unchanged, uint64_t moved,
                          uint64_t skipped)
{
    if (r.added != added || r.updated != updated || r.unchanged != unchanged || r.moved != moved ||
        r.skipped != skipped)
        fail_msg("%lu added, %lu updated, %lu unchanged, %lu moved, %lu skipped", (unsigned long)r.added,
                 (unsigned long)r.updated, (unsigned long)r.unchanged, (unsigned long)r.moved,
                 (unsigned long)r.skipped);
}

static inline lk_record find(void **state, lk_collection *c, const char *name)
{
    lk_record record;
    OK(lk_collection_find_path(c, at(state, name), &record));
    return record;
}

static inline int64_t id_of(void **state, lk_collection *c, const char *name)
{
    lk_record record = find(state, c, name);
    int64_t id = record.id;
    lk_record_free(&record);
    return id;
}

#endif
