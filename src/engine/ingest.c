/* Pictures into a collection: read, hash, decode and embed on the pool; store in order in one thread. A job is a group
 * of as many pictures as the embedder likes at once; while one worker's group runs through the network, another's is
 * decoded. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/group.h"
#include <likeness/engine.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOBS_PER_THREAD = 4, DEFAULT_BATCH = 256 };
enum {
    MOST_COPIES = 64
}; /* of the same bytes that are looked at for one that moved: of a placeholder there are thousands */

/* One picture on its way. */
typedef struct picture {
    const lk_source *source;
    lk_record known; /* what the catalog has of this path; id 0 = nothing */
    uint64_t size;
    int64_t mtime_ns;
    lk_hash128 hash;
    uint32_t width, height;
    bool same; /* the bytes are those the catalog knows: nothing was embedded */
} picture;

/* Pictures that travel together. Decoded ones exist only while a worker has the group, so memory is bounded by the
 * threads. */
typedef struct group {
    const lk_embedder *embedder;
    const lk_image_options *decoding;
    picture *pictures;    /* [batch] */
    lk_group_item *items; /* [batch], in step with pictures */
    float *vectors;       /* [batch][dim] */
    size_t count;
    double decode_seconds, embed_seconds;
} group;

static lk_status read_picture(const group *g, picture *p, lk_image *image)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    lk_status s = lk_file_read(p->source->path, g->decoding->max_bytes, &bytes, &size);
    if (s != LK_OK) return s;
    p->size = size;
    p->hash = lk_hash(bytes, size);
    p->same = p->known.id && p->known.state == LK_PICTURE_INDEXED && p->known.hash[0] == p->hash.low &&
              p->known.hash[1] == p->hash.high;
    if (!p->same) s = lk_image_load_memory(bytes, size, p->source->path, g->decoding, image);
    free(bytes);
    p->width = image->source_width;
    p->height = image->source_height;
    return s;
}

static void run_group(void *arg)
{
    group *g = arg;
    double start = lk_now();
    size_t same = 0;
    for (size_t i = 0; i < g->count; i++) {
        lk_group_item *item = &g->items[i];
        *item = (lk_group_item){.name = g->pictures[i].source->path};
        lk_status s = read_picture(g, &g->pictures[i], &item->image);
        if (s != LK_OK) lk_group_fail(item, s);
        item->leave_out = g->pictures[i].same;
        same += g->pictures[i].same;
    }
    g->decode_seconds = lk_now() - start;
    g->embed_seconds = 0;
    if (same == g->count) return;
    start = lk_now();
    lk_group_embed(g->embedder, g->items, g->count, g->vectors);
    g->embed_seconds = lk_now() - start;
}

typedef struct ingest {
    lk_context *context;
    lk_collection *collection;
    lk_image_options decoding;
    const lk_ingest_options *options;
    lk_ingest_report *report;
    group *groups; /* [capacity] ring, in step with the pipeline */
    size_t capacity, batch, submitted, since_commit;
} ingest;

static bool same_labels(const lk_source *source, const lk_record *known)
{
    return !source->labels || strcmp(source->labels, known->labels ? known->labels : "{}") == 0;
}

static lk_status commit_if(ingest *in, size_t at_least)
{
    if (in->since_commit < at_least || in->since_commit == 0) return LK_OK;
    in->since_commit = 0;
    return lk_collection_commit(in->collection);
}

/* Records that a picture cannot be used. What the catalog knew of it is replaced: its vector would be of other bytes.
 */
static lk_status store_skipped(ingest *in, const picture *job, const char *message)
{
    lk_record record = {.id = job->known.id,
                        .path = job->source->path,
                        .size = job->size,
                        .mtime_ns = job->mtime_ns,
                        .hash = {job->hash.low, job->hash.high},
                        .labels = job->source->labels ? job->source->labels : job->known.labels,
                        .state = LK_PICTURE_SKIPPED,
                        .error = message};
    in->report->skipped++;
    lk_log(in->context, LK_LOG_WARN, "skipped %s", message);
    return lk_collection_put(in->collection, &record, NULL, NULL);
}

/* Whether these bytes belong to a picture whose file is gone: then it has moved here and keeps its id. *moved is empty
 * (id 0) when there is none; else the caller frees it. */
static lk_status find_moved(ingest *in, const picture *job, lk_record *moved)
{
    uint64_t hash[2] = {job->hash.low, job->hash.high};
    lk_status s;
    *moved = (lk_record){0};
    int64_t after = 0;
    for (int i = 0; i < MOST_COPIES; i++) {
        s = lk_collection_find_hash(in->collection, hash, after, moved);
        if (s != LK_OK) return s == LK_NOT_FOUND ? LK_OK : s;
        if (!lk_path_exists(moved->path)) return LK_OK;
        after = moved->id;
        lk_record_free(moved);
    }
    return LK_OK;
}

static lk_status store_picture(ingest *in, const picture *job, const float *vector)
{
    lk_ingest_report *report = in->report;
    lk_record record = {.id = job->known.id,
                        .path = job->source->path,
                        .size = job->size,
                        .mtime_ns = job->mtime_ns,
                        .hash = {job->hash.low, job->hash.high},
                        .width = job->width,
                        .height = job->height,
                        .labels = job->source->labels ? job->source->labels : job->known.labels,
                        .state = LK_PICTURE_INDEXED};
    if (job->same) { /* touched, or labelled anew */
        record.width = job->known.width;
        record.height = job->known.height;
        if (same_labels(job->source, &job->known))
            report->unchanged++;
        else
            report->updated++;
        return lk_collection_update(in->collection, &record);
    }
    if (!record.id) {
        lk_record moved;
        lk_status s = find_moved(in, job, &moved);
        if (s != LK_OK) return s;
        if (moved.id) {
            record.id = moved.id;
            if (!record.labels) record.labels = moved.labels;
            report->moved++;
            s = lk_collection_update(in->collection, &record); /* the bytes are the same, and so is the vector */
            lk_record_free(&moved);
            return s;
        }
    }
    if (record.id)
        report->updated++;
    else
        report->added++;
    return lk_collection_put(in->collection, &record, vector, NULL);
}

static lk_status finish_picture(ingest *in, picture *p, lk_group_item *item, const float *vector)
{
    lk_status s;
    if (item->fatal)
        s = lk_fail(item->status, "%s", item->message);
    else
        s = item->status == LK_OK ? store_picture(in, p, vector) : store_skipped(in, p, item->message);
    lk_record_free(&p->known);
    if (s != LK_OK) return s;
    in->since_commit++;
    return commit_if(in, in->options->commit_every ? in->options->commit_every : DEFAULT_BATCH);
}

static lk_status finish_group(ingest *in, group *g)
{
    size_t dim = lk_embedder_dim(g->embedder);
    lk_status s = LK_OK;
    in->report->decode_seconds += g->decode_seconds;
    in->report->embed_seconds += g->embed_seconds;
    for (size_t i = 0; i < g->count; i++)
        if (s == LK_OK)
            s = finish_picture(in, &g->pictures[i], &g->items[i], g->vectors + i * dim);
        else
            lk_record_free(&g->pictures[i].known);
    return s;
}

/* Says why a path is passed over that the catalog is not to know. */
static lk_status pass_over(ingest *in, const char *path, const char *why)
{
    in->report->skipped++;
    lk_log(in->context, LK_LOG_WARN, "skipped %s: %s", path, why);
    return LK_OK;
}

/* Looks at the file and the catalog; true when the picture must be worked on. Everything else is settled here. */
static lk_status look_at(ingest *in, const lk_source *source, picture *job, bool *work)
{
    struct stat st;
    *work = false;
    if (!lk_utf8_valid(source->path)) /* the catalog cannot hold the name, and one file is no reason to index none */
        return pass_over(in, source->path, "the name is not valid UTF-8: rename the file");
    bool there = stat(source->path, &st) == 0;
    if (there && S_ISDIR(st.st_mode) && access(source->path, R_OK | X_OK) != 0)
        return pass_over(in, source->path, "the folder cannot be read");
    *work = true;
    lk_status s = lk_collection_find_path(in->collection, source->path, &job->known);
    if (s == LK_NOT_FOUND) {
        job->known = (lk_record){0};
        s = LK_OK;
    }
    if (s != LK_OK) return s;
    if (!there) return LK_OK; /* reading it will say why */
    job->size = (uint64_t)st.st_size;
    job->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    const lk_record *known = &job->known;
    if (!known->id || known->size != job->size || known->mtime_ns != job->mtime_ns) return LK_OK;
    if (known->state == LK_PICTURE_SKIPPED) {
        if (in->options->retry_skipped) return LK_OK;
        in->report->skipped++;
        in->report->skipped_before++;
    } else if (same_labels(source, known)) {
        in->report->unchanged++;
    } else {
        lk_record record = *known;
        record.labels = source->labels;
        s = lk_collection_update(in->collection, &record);
        in->report->updated++;
        in->since_commit++;
    }
    *work = false;
    lk_record_free(&job->known);
    return s;
}

/* Fills the next group of the ring with pictures that must be worked on; *next moves past those looked at. */
static lk_status fill_group(ingest *in, lk_source_list *sources, size_t *next, size_t count, size_t *done, group *g)
{
    g->count = 0;
    while (g->count < in->batch && *next < count) {
        picture *p = &g->pictures[g->count];
        const lk_source *source = lk_sources_at(sources, (*next)++);
        bool work;
        *p = (picture){.source = source};
        lk_status s = look_at(in, source, p, &work);
        if (s != LK_OK) {
            for (size_t i = 0; i < g->count; i++) lk_record_free(&g->pictures[i].known);
            return s;
        }
        if (work)
            g->count++;
        else
            ++*done;
    }
    return LK_OK;
}

static lk_status run(ingest *in, lk_source_list *sources, lk_ordered *pipeline)
{
    size_t count = lk_sources_count(sources), next = 0, done = 0;
    lk_status s = LK_OK;
    while (next < count || lk_ordered_pending(pipeline)) {
        while (next < count && lk_ordered_room(pipeline) && !lk_context_cancelled(in->context)) {
            group *g = &in->groups[in->submitted % in->capacity];
            s = fill_group(in, sources, &next, count, &done, g);
            if (s != LK_OK) return s;
            if (g->count == 0) continue;
            in->submitted++;
            lk_ordered_submit(pipeline, g);
        }
        group *g = lk_ordered_take(pipeline);
        if (g) {
            done += g->count;
            s = finish_group(in, g);
            if (s != LK_OK) return s;
        }
        lk_report_progress(in->context, "indexing", done, count);
        if (!g && lk_context_cancelled(in->context)) break;
    }
    s = commit_if(in, 1);
    if (s == LK_OK && next < count)
        s = lk_fail(LK_CANCELLED,
                    "stopped after %zu of %zu pictures: what is done is kept, the same command goes on from there",
                    done, count);
    return s;
}

/* As many as the embedder likes, but no worker is to be left without. */
static size_t group_size(lk_context *context, const lk_embedder *embedder, size_t pictures)
{
    size_t share = pictures / (size_t)lk_context_threads(context) + 1, batch = lk_embedder_batch(embedder);
    return share < batch ? share : batch;
}

static lk_status make_groups(ingest *in, const lk_embedder *embedder)
{
    size_t dim = lk_embedder_dim(embedder);
    in->groups = lk_alloc_zero(in->capacity, sizeof *in->groups);
    for (size_t i = 0; in->groups && i < in->capacity; i++) {
        group *g = &in->groups[i];
        g->embedder = embedder;
        g->decoding = &in->decoding;
        g->pictures = lk_alloc_zero(in->batch, sizeof *g->pictures);
        g->items = lk_alloc_zero(in->batch, sizeof *g->items);
        g->vectors = lk_alloc(in->batch * dim, sizeof *g->vectors);
        if (!g->pictures || !g->items || !g->vectors) return lk_fail_memory("pipeline");
    }
    return in->groups ? LK_OK : lk_fail_memory("pipeline");
}

static void free_groups(ingest *in)
{
    for (size_t i = 0; in->groups && i < in->capacity; i++) {
        free(in->groups[i].pictures);
        free(in->groups[i].items);
        free(in->groups[i].vectors);
    }
    free(in->groups);
}

lk_status lk_ingest(lk_context *context, lk_collection *collection, const lk_embedder *embedder,
                    lk_source_list *sources, const lk_ingest_options *options, lk_ingest_report *report)
{
    static const lk_ingest_options defaults = {0};
    lk_ingest_report unused;
    if (!options) options = &defaults;
    if (!report) report = &unused;
    *report = (lk_ingest_report){0};
    lk_collection_config config = lk_collection_config_of(collection);
    if (strcmp(config.embedder_id, lk_embedder_id(embedder)) != 0)
        return lk_fail(LK_CONFLICT, "%s holds vectors of the model %s (%s); they cannot be mixed with those of %s (%s)",
                       lk_collection_path(collection), config.embedder_name, config.embedder_id,
                       lk_embedder_name(embedder), lk_embedder_id(embedder));
    lk_status s = lk_image_prepare(NULL); /* a missing library is no picture's fault: none may be skipped for it */
    if (s != LK_OK) return s;
    ingest in = {.context = context,
                 .collection = collection,
                 .decoding = lk_embedder_image_options(embedder),
                 .options = options,
                 .report = report,
                 .capacity = (size_t)lk_context_threads(context) * JOBS_PER_THREAD,
                 .batch = group_size(context, embedder, lk_sources_count(sources))};
    if (options->max_bytes) in.decoding.max_bytes = options->max_bytes;
    if (options->max_pixels) in.decoding.max_pixels = options->max_pixels;
    double start = lk_now();
    lk_ordered *pipeline = NULL;
    s = make_groups(&in, embedder);
    if (s == LK_OK) s = lk_ordered_new(lk_context_pool(context), in.capacity, run_group, &pipeline);
    if (s == LK_OK) s = run(&in, sources, pipeline);
    if (s != LK_OK && pipeline) { /* drop what is still under way; keep the message of what went wrong */
        char message[LK_ERROR_SIZE];
        strcpy(message, lk_error_message());
        for (group *g; (g = lk_ordered_take(pipeline));)
            for (size_t i = 0; i < g->count; i++) lk_record_free(&g->pictures[i].known);
        if (s != LK_CANCELLED) lk_collection_rollback(collection);
        lk_fail(s, "%s", message);
    }
    lk_ordered_free(pipeline);
    free_groups(&in);
    report->wall_seconds = lk_now() - start;
    return s;
}

/* ---- vectors alone ---- */

typedef struct embedding {
    lk_context *context;
    const lk_embedder *embedder;
    lk_image_options decoding;
    const lk_source *sources;
    size_t count, dim;
    float *out;
    uint8_t *ok;
    _Atomic uint64_t done;
} embedding;

static lk_status embed_range(void *arg, size_t begin, size_t end, int worker)
{
    embedding *all = arg;
    (void)worker;
    size_t n = end - begin;
    float *out = all->out + begin * all->dim;
    if (lk_context_cancelled(all->context)) return lk_fail(LK_CANCELLED, "stopped");
    lk_group_item *items = lk_alloc_zero(n, sizeof *items);
    if (!items) return lk_fail_memory("pictures");
    for (size_t i = 0; i < n; i++) {
        items[i].name = all->sources[begin + i].path;
        lk_status s = lk_image_load(all->sources[begin + i].path, &all->decoding, &items[i].image);
        if (s != LK_OK) lk_group_fail(&items[i], s);
    }
    lk_group_embed(all->embedder, items, n, out);
    lk_status s = LK_OK;
    for (size_t i = 0; i < n; i++) {
        if (items[i].fatal && s == LK_OK) s = lk_fail(items[i].status, "%s", items[i].message);
        if (items[i].status != LK_OK) {
            memset(out + i * all->dim, 0, all->dim * sizeof *out);
            lk_log(all->context, LK_LOG_WARN, "skipped %s", items[i].message);
        }
        if (all->ok) all->ok[begin + i] = items[i].status == LK_OK;
        lk_report_progress(all->context, "embedding", ++all->done, all->count);
    }
    free(items);
    return s;
}

lk_status lk_embed_sources(lk_context *context, const lk_embedder *embedder, const lk_source *sources, size_t count,
                           float *out, uint8_t *ok)
{
    embedding all = {.context = context,
                     .embedder = embedder,
                     .decoding = lk_embedder_image_options(embedder),
                     .sources = sources,
                     .count = count,
                     .dim = lk_embedder_dim(embedder),
                     .out = out,
                     .ok = ok};
    lk_status s = lk_image_prepare(NULL);
    if (s != LK_OK) return s;
    return lk_parallel_for(lk_context_pool(context), count, group_size(context, embedder, count), embed_range, &all);
}
