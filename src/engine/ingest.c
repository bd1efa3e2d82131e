/* Pictures into a collection: read, hash, decode and embed on the pool; store in order in one thread. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include <likeness/engine.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { JOBS_PER_THREAD = 4, DEFAULT_BATCH = 256 };

/* One picture on its way. Memory in flight is bounded by the number of jobs: each holds one file or one picture. */
typedef struct picture_job {
    const lk_embedder *embedder;
    const lk_image_options *decoding;
    const lk_source *source;
    lk_record known; /* what the catalog has of this path; id 0 = nothing */
    uint64_t size;
    int64_t mtime_ns;
    lk_hash128 hash;
    uint32_t width, height;
    float *vector; /* [dim] */
    bool same;     /* the bytes are those the catalog knows: nothing was embedded */
    lk_status status;
    char message[LK_ERROR_SIZE];
    double decode_seconds, embed_seconds;
} picture_job;

static lk_status work_on(picture_job *job)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    lk_image image = {0};
    double start = lk_now();
    lk_status s = lk_file_read(job->source->path, job->decoding->max_bytes, &bytes, &size);
    if (s != LK_OK) return s;
    job->size = size;
    job->hash = lk_hash(bytes, size);
    job->same = job->known.id && job->known.state == LK_PICTURE_INDEXED && job->known.hash[0] == job->hash.low &&
                job->known.hash[1] == job->hash.high;
    if (!job->same) s = lk_image_load_memory(bytes, size, job->source->path, job->decoding, &image);
    free(bytes);
    job->decode_seconds = lk_now() - start;
    if (s != LK_OK || job->same) return s;
    job->width = image.source_width;
    job->height = image.source_height;
    start = lk_now();
    s = lk_fail_in(lk_embedder_embed(job->embedder, &image, 1, job->vector), "%s", job->source->path);
    job->embed_seconds = lk_now() - start;
    lk_image_free(&image);
    return s;
}

static void run_job(void *arg)
{
    picture_job *job = arg;
    job->status = work_on(job);
    if (job->status != LK_OK) strcpy(job->message, lk_error_message());
}

typedef struct ingest {
    lk_context *context;
    lk_collection *collection;
    lk_image_options decoding;
    const lk_ingest_options *options;
    lk_ingest_report *report;
    picture_job *jobs; /* [capacity] ring, in step with the pipeline */
    size_t capacity, submitted, since_commit;
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
static lk_status store_skipped(ingest *in, const picture_job *job)
{
    lk_record record = {.id = job->known.id,
                        .path = job->source->path,
                        .size = job->size,
                        .mtime_ns = job->mtime_ns,
                        .hash = {job->hash.low, job->hash.high},
                        .labels = job->source->labels ? job->source->labels : job->known.labels,
                        .state = LK_PICTURE_SKIPPED,
                        .error = job->message};
    in->report->skipped++;
    lk_log(in->context, LK_LOG_WARN, "skipped %s", job->message);
    return lk_collection_put(in->collection, &record, NULL, NULL);
}

/* Whether these bytes belong to a picture whose file is gone: then it has moved here and keeps its id. */
static lk_status find_moved(ingest *in, const picture_job *job, int64_t *id)
{
    uint64_t hash[2] = {job->hash.low, job->hash.high};
    lk_record other;
    *id = 0;
    lk_status s = lk_collection_find_hash(in->collection, hash, &other);
    if (s == LK_NOT_FOUND) return LK_OK;
    if (s != LK_OK) return s;
    if (!lk_path_exists(other.path)) *id = other.id;
    lk_record_free(&other);
    return LK_OK;
}

static lk_status store_picture(ingest *in, const picture_job *job)
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
        lk_status s = find_moved(in, job, &record.id);
        if (s != LK_OK) return s;
        if (record.id) {
            report->moved++;
            return lk_collection_put(in->collection, &record, job->vector, NULL);
        }
    }
    if (record.id)
        report->updated++;
    else
        report->added++;
    return lk_collection_put(in->collection, &record, job->vector, NULL);
}

static lk_status finish_job(ingest *in, picture_job *job)
{
    in->report->decode_seconds += job->decode_seconds;
    in->report->embed_seconds += job->embed_seconds;
    lk_status s;
    if (job->status == LK_NO_MEMORY)
        s = lk_fail(job->status, "%s", job->message); /* the machine's fault, not the picture's */
    else
        s = job->status == LK_OK ? store_picture(in, job) : store_skipped(in, job);
    lk_record_free(&job->known);
    if (s != LK_OK) return s;
    in->since_commit++;
    return commit_if(in, in->options->commit_every ? in->options->commit_every : DEFAULT_BATCH);
}

/* Looks at the file and the catalog; true when the picture must be worked on. Everything else is settled here. */
static lk_status look_at(ingest *in, const lk_source *source, picture_job *job, bool *work)
{
    struct stat st;
    *work = true;
    lk_status s = lk_collection_find_path(in->collection, source->path, &job->known);
    if (s == LK_NOT_FOUND) {
        job->known = (lk_record){0};
        s = LK_OK;
    }
    if (s != LK_OK) return s;
    if (stat(source->path, &st) != 0) return LK_OK; /* reading it will say why */
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

static lk_status run(ingest *in, const lk_embedder *embedder, lk_source_list *sources, lk_ordered *pipeline)
{
    size_t count = lk_sources_count(sources), next = 0, done = 0;
    lk_status s = LK_OK;
    while (next < count || lk_ordered_pending(pipeline)) {
        while (next < count && lk_ordered_room(pipeline) && !lk_context_cancelled(in->context)) {
            picture_job *job = &in->jobs[in->submitted % in->capacity];
            const lk_source *source = lk_sources_at(sources, next++);
            float *vector = job->vector;
            *job = (picture_job){.embedder = embedder, .decoding = &in->decoding, .source = source, .vector = vector};
            bool work;
            s = look_at(in, source, job, &work);
            if (s != LK_OK) return s;
            if (work) {
                in->submitted++;
                lk_ordered_submit(pipeline, job);
            } else {
                done++;
            }
        }
        picture_job *job = lk_ordered_take(pipeline);
        if (job) {
            s = finish_job(in, job);
            if (s != LK_OK) return s;
            done++;
        }
        lk_report_progress(in->context, "indexing", done, count);
        if (!job && lk_context_cancelled(in->context)) break;
    }
    s = commit_if(in, 1);
    if (s == LK_OK && next < count)
        s = lk_fail(LK_CANCELLED,
                    "stopped after %zu of %zu pictures: what is done is kept, the same command goes on from there",
                    done, count);
    return s;
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
    ingest in = {.context = context,
                 .collection = collection,
                 .decoding = lk_embedder_image_options(embedder),
                 .options = options,
                 .report = report,
                 .capacity = (size_t)lk_context_threads(context) * JOBS_PER_THREAD};
    if (options->max_bytes) in.decoding.max_bytes = options->max_bytes;
    if (options->max_pixels) in.decoding.max_pixels = options->max_pixels;
    double start = lk_now();
    size_t dim = lk_embedder_dim(embedder);
    lk_ordered *pipeline = NULL;
    float *vectors = lk_alloc(in.capacity * dim, sizeof *vectors);
    in.jobs = lk_alloc_zero(in.capacity, sizeof *in.jobs);
    lk_status s = vectors && in.jobs ? LK_OK : lk_fail_memory("pipeline");
    for (size_t i = 0; s == LK_OK && i < in.capacity; i++) in.jobs[i].vector = vectors + i * dim;
    if (s == LK_OK) s = lk_ordered_new(lk_context_pool(context), in.capacity, run_job, &pipeline);
    if (s == LK_OK) s = run(&in, embedder, sources, pipeline);
    if (s != LK_OK && pipeline) { /* drop what is still under way; keep the message of what went wrong */
        char message[LK_ERROR_SIZE];
        strcpy(message, lk_error_message());
        for (picture_job *job; (job = lk_ordered_take(pipeline));) lk_record_free(&job->known);
        if (s != LK_CANCELLED) lk_collection_rollback(collection);
        lk_fail(s, "%s", message);
    }
    lk_ordered_free(pipeline);
    free(vectors);
    free(in.jobs);
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
    for (size_t i = begin; i < end; i++) {
        if (lk_context_cancelled(all->context)) return lk_fail(LK_CANCELLED, "stopped");
        lk_image image;
        float *out = all->out + i * all->dim;
        lk_status s = lk_image_load(all->sources[i].path, &all->decoding, &image);
        if (s == LK_OK) {
            s = lk_fail_in(lk_embedder_embed(all->embedder, &image, 1, out), "%s", all->sources[i].path);
            lk_image_free(&image);
        }
        if (s == LK_NO_MEMORY) return s;
        if (s != LK_OK) {
            memset(out, 0, all->dim * sizeof *out);
            lk_log(all->context, LK_LOG_WARN, "skipped %s", lk_error_message());
        }
        if (all->ok) all->ok[i] = s == LK_OK;
        lk_report_progress(all->context, "embedding", ++all->done, all->count);
    }
    return LK_OK;
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
    return lk_parallel_for(lk_context_pool(context), count, 1, embed_range, &all);
}
