/* What each address answers; described for callers in docs/api.md. */
#include "base/error.h"
#include "base/file.h"
#include "engine/query.h"
#include "engine/searcher.h"
#include "server/server.h"
#include <likeness/likeness.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- answering ---- */

static enum MHD_Result send_response(lk_request *request, unsigned status, const char *type,
                                     struct MHD_Response *response, const char *cache)
{
    if (!response) return MHD_NO;
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Cache-Control", cache);
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'");
    if (status == 405) MHD_add_response_header(response, "Allow", "GET, HEAD, POST");
    if (status >= 400) atomic_fetch_add(&request->server->failures, 1);
    enum MHD_Result queued = MHD_queue_response(request->connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result lk_answer_bytes(lk_request *request, const char *type, uint8_t *bytes, size_t size, const char *cache)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(size, bytes, MHD_RESPMEM_MUST_FREE);
    if (!response) free(bytes);
    return send_response(request, 200, type, response, cache);
}

enum MHD_Result lk_answer_json(lk_request *request, unsigned status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(value);
    if (!text) return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!response) free(text);
    return send_response(request, status, "application/json", response, "no-store");
}

enum MHD_Result lk_answer_error(lk_request *request, unsigned status, const char *message)
{
    json_t *value = json_pack("{s:{s:I, s:s}}", "error", "code", (json_int_t)status, "message", message);
    if (!value) /* the message held bytes that are not UTF-8 */
        value = json_pack("{s:{s:I, s:s}}", "error", "code", (json_int_t)status, "message", "the request failed");
    return lk_answer_json(request, status, value);
}

/* A failure of the library, as the status of HTTP that means the same. */
static enum MHD_Result answer_failure(lk_request *request, lk_status s)
{
    static const unsigned codes[] = {
        [LK_INVALID] = 400,     [LK_NOT_FOUND] = 404, [LK_CORRUPT] = 415,  [LK_IO] = 500,   [LK_NO_MEMORY] = 503,
        [LK_UNSUPPORTED] = 415, [LK_CANCELLED] = 503, [LK_CONFLICT] = 500, [LK_LIMIT] = 413};
    return lk_answer_error(request, codes[s], lk_error_message());
}

/* A number of the query string; false when it is there and is none in [least, most]. Absent leaves *out. */
static bool argument(lk_request *request, const char *name, int64_t least, int64_t most, int64_t *out)
{
    const char *text = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
    if (!text) return true;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) return false;
    *out = value;
    return true;
}

static json_t *result_json(const lk_result *r, bool scored)
{
    json_t *labels = json_loads(r->labels, 0, NULL);
    json_t *out = json_pack("{s:I, s:s, s:s?, s:o?, s:I, s:I}", "id", (json_int_t)r->id, "path", r->path, "label",
                            r->label, "labels", labels, "width", (json_int_t)r->width, "height", (json_int_t)r->height);
    if (scored) json_object_set_new(out, "score", json_real((double)r->score));
    return out;
}

static json_t *results_json(const lk_results *results, bool scored)
{
    json_t *list = json_array();
    for (size_t i = 0; i < results->count; i++) {
        json_t *item = result_json(&results->items[i], scored);
        if (results->rerank && isfinite(results->items[i].reranked))
            json_object_set_new(item, "reranked", json_real((double)results->items[i].reranked));
        json_array_append_new(list, item);
    }
    return list;
}

/* ---- routes ---- */

static enum MHD_Result route_info(lk_request *request)
{
    lk_server *server = request->server;
    lk_collection_config config = lk_searcher_config(server->searcher);
    static const char *const metrics[] = {"cosine", "inner product", "squared distance"};
    return lk_answer_json(request, 200,
                          json_pack("{s:I, s:I, s:s, s:s, s:s, s:s, s:I}", "count",
                                    (json_int_t)lk_searcher_count(server->searcher), "dim", (json_int_t)config.dim,
                                    "metric", metrics[config.metric], "model", config.embedder_name, "model_id",
                                    config.embedder_id, "version", lk_version(), "max_upload_bytes",
                                    (json_int_t)server->options.max_upload_bytes));
}

static enum MHD_Result route_page(lk_request *request)
{
    int64_t after = 0, n = 60;
    if (!argument(request, "after", 0, INT64_MAX, &after) || !argument(request, "n", 1, 500, &n))
        return lk_answer_error(request, 400, "after is an id, n a number from 1 to 500");
    lk_results results;
    lk_status s = lk_searcher_page(request->server->searcher, after, (size_t)n, &results);
    if (s != LK_OK) return answer_failure(request, s);
    json_t *value =
        json_pack("{s:o, s:I}", "images", results_json(&results, false), "next",
                  results.count == (size_t)n ? (json_int_t)results.items[results.count - 1].id : (json_int_t)0);
    lk_results_free(&results);
    return lk_answer_json(request, 200, value);
}

static enum MHD_Result route_record(lk_request *request, int64_t id)
{
    lk_record record;
    lk_status s = lk_searcher_record(request->server->searcher, id, &record);
    if (s != LK_OK) return answer_failure(request, s);
    lk_result r = {.id = record.id,
                   .path = (char *)record.path,
                   .label = (char *)record.label,
                   .labels = (char *)(record.labels ? record.labels : "{}"),
                   .width = record.width,
                   .height = record.height};
    json_t *value = result_json(&r, false);
    json_object_set_new(value, "bytes", json_integer((json_int_t)record.size));
    json_object_set_new(value, "state", json_string(record.state == LK_PICTURE_INDEXED ? "indexed" : "skipped"));
    lk_record_free(&record);
    return lk_answer_json(request, 200, value);
}

/* The picture as a raster at most `size` pixels wide and high. Never the file itself: an SVG or HTML that somebody
 * slipped into a collection would run its scripts as this site. Only paths of the catalog are read. */
static enum MHD_Result route_file(lk_request *request, int64_t id)
{
    lk_server *server = request->server;
    int64_t size = 256;
    if (!argument(request, "size", 16, 2048, &size))
        return lk_answer_error(request, 400, "size is a number from 16 to 2048");
    lk_record record;
    lk_status s = lk_searcher_record(server->searcher, id, &record);
    if (s != LK_OK) return answer_failure(request, s);
    int64_t stamp = record.mtime_ns;
    size_t bytes = 0;
    uint8_t *data = lk_thumbs_get(server->thumbs, id, (unsigned)size, stamp, &bytes);
    if (!data) {
        lk_image_options options = lk_image_default_options();
        options.max_side = (uint32_t)size;
        lk_image image = {0};
        s = lk_image_load(record.path, &options, &image);
        if (s == LK_OK) s = lk_image_encode(&image, LK_FORMAT_WEBP, 85, &data, &bytes);
        lk_image_free(&image);
        if (s == LK_OK) lk_thumbs_put(server->thumbs, id, (unsigned)size, stamp, data, bytes);
    }
    lk_record_free(&record);
    if (s != LK_OK) return answer_failure(request, s);
    return lk_answer_bytes(request, "image/webp", data, bytes, "private, max-age=300");
}

static enum MHD_Result answer_search(lk_request *request, lk_status s, lk_results *results, double started)
{
    lk_server *server = request->server;
    double took = lk_now() - started;
    atomic_fetch_add(&server->searches, 1);
    atomic_fetch_add(&server->search_microseconds, (unsigned long long)(took * 1e6));
    /* The request has been found sound and its pictures have been read: what is damaged or of a newer version is ours.
     */
    if (s == LK_UNSUPPORTED || s == LK_CORRUPT) return lk_answer_error(request, 500, lk_error_message());
    if (s != LK_OK) return answer_failure(request, s);
    json_t *value = json_pack("{s:o, s:f}", "results", results_json(results, true), "took_ms", took * 1000);
    lk_results_free(results);
    return lk_answer_json(request, 200, value);
}

/* A list of ids, "3,7"; false when it is there and is none, or has more than most. *count 0 when it is absent. */
static bool id_list(lk_request *request, const char *name, int64_t *ids, size_t most, size_t *count)
{
    const char *text = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
    *count = 0;
    if (!text) return true;
    for (;;) {
        char *end;
        errno = 0;
        long long id = strtoll(text, &end, 10);
        if (errno || end == text || id <= 0 || *count == most) return false;
        ids[(*count)++] = id;
        if (!*end) return true;
        if (*end != ',') return false;
        text = end + 1;
    }
}

enum {
    MOST_IDS = 64,
    MOST_BEST = 16,
    MOST_NEAR = 200,
    MOST_RESULTS = 200,
    MOST_WITHIN = 1000,
    MOST_DIVERSE_AMONG = 10000
};
enum { WHERE_SECONDS = 5 }; /* that a filter may take: the thread answers nobody else meanwhile */

/* What the query string asks for. */
typedef struct asked {
    lk_search_options options;
    int64_t ids[MOST_IDS], yes[MOST_IDS], no[MOST_IDS];
    size_t n_ids;
    uint32_t crop[4];
    bool cropped;
} asked;

static const char *text_argument(lk_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* within, fuse, diverse and trade: as the options of `likeness search`. */
static lk_status read_shape(lk_request *request, lk_search_options *out)
{
    const char *within = text_argument(request, "within"), *fuse = text_argument(request, "fuse"),
               *diverse = text_argument(request, "diverse"), *trade = text_argument(request, "trade");
    lk_metric metric = lk_searcher_config(request->server->searcher).metric;
    lk_status s = LK_OK;
    if (within) s = lk_within_parse("within", within, metric, out);
    if (s == LK_OK && fuse) s = lk_fuse_parse("fuse", fuse, out);
    if (s == LK_OK && diverse) s = lk_apart_parse("diverse", diverse, out);
    if (s == LK_OK && trade) s = lk_trade_parse("trade", trade, out);
    return s;
}

/* NULL, or what is wrong with it. */
static const char *read_asked(lk_request *request, asked *out)
{
    static const char *const texts[] = {"where", "within", "fuse", "diverse", "trade", "rerank", "expand"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = text_argument(request, texts[i]);
        if (!text || lk_utf8_valid(text)) continue;
        lk_fail(LK_INVALID, "%s is not UTF-8", texts[i]);
        return lk_error_message();
    }
    bool within = text_argument(request, "within") != NULL;
    int64_t k = within ? MOST_WITHIN : 24, shortlist = 0, expand_k = 0;
    *out = (asked){0};
    lk_search_options *o = &out->options;
    if (!argument(request, "k", 1, within ? MOST_WITHIN : MOST_RESULTS, &k))
        return within ? "k is a number from 1 to 1000" : "k is a number from 1 to 200";
    if (!argument(request, "shortlist", 1, 1000, &shortlist)) return "shortlist is a number from 1 to 1000";
    if (!argument(request, "expand-count", 1, 100, &expand_k)) return "expand-count is a number from 1 to 100";
    if (!id_list(request, "id", out->ids, MOST_IDS, &out->n_ids))
        return "id is the number of a picture, or up to 64 with commas";
    if (!id_list(request, "yes", out->yes, MOST_IDS, &o->n_yes) || !id_list(request, "no", out->no, MOST_IDS, &o->n_no))
        return "yes and no are numbers of pictures, up to 64 with commas";
    o->k = (size_t)k;
    o->diverse_among = MOST_DIVERSE_AMONG;
    o->shortlist = (size_t)shortlist;
    o->expand_k = (size_t)expand_k;
    o->yes = out->yes;
    o->no = out->no;
    const char *rerank = text_argument(request, "rerank"), *expand = text_argument(request, "expand"),
               *crop = text_argument(request, "crop"), *exact = text_argument(request, "exact");
    o->where = text_argument(request, "where");
    o->where_seconds = WHERE_SECONDS;
    if (exact && strcmp(exact, "0") != 0 && strcmp(exact, "1") != 0) return "exact is 0 or 1";
    o->exact = exact && *exact == '1';
    if (rerank && lk_rerank_parse(rerank, o) != LK_OK) return lk_error_message();
    if (expand && lk_expansion_parse(expand, o) != LK_OK) return lk_error_message();
    if (read_shape(request, o) != LK_OK) return lk_error_message();
    if (o->kreciprocal.k1 > MOST_NEAR || o->kreciprocal.k2 > MOST_NEAR || o->diffusion.k > MOST_NEAR ||
        o->superglobal.k > MOST_NEAR || o->expand_k > MOST_NEAR)
        return "numbers of neighbours in rerank and expand go to 200";
    int end = 0;
    out->cropped = crop != NULL;
    if (crop && (sscanf(crop, "%9" SCNu32 ",%9" SCNu32 ",%9" SCNu32 ",%9" SCNu32 "%n", &out->crop[0], &out->crop[1],
                        &out->crop[2], &out->crop[3], &end) != 4 ||
                 crop[end]))
        return "crop is left,top,width,height in pixels of the posted picture";
    return NULL;
}

/* The posted pictures. */
typedef struct uploads {
    lk_image images[LK_MOST_UPLOADS], details[LK_MOST_UPLOADS];
    size_t count;
} uploads;

static void free_uploads(uploads *u)
{
    for (size_t i = 0; i < u->count; i++) {
        lk_image_free(&u->images[i]);
        lk_image_free(&u->details[i]);
    }
}

/* The pictures of one form share the limit of pixels, so that it is one of what a request costs. Of several a drawing
 * may have its share alone: how much of it is used up is not known. */
static lk_status read_uploads(lk_request *request, const uint32_t *crop, bool detailed, uploads *out)
{
    lk_server *server = request->server;
    size_t count = request->pictures;
    uint64_t most = server->options.max_pixels, left = most, pixels;
    lk_status s = LK_OK;
    char name[32] = "upload"; /* in messages; of several the number tells which */
    *out = (uploads){0};
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        size_t begin = request->starts[i], end = i + 1 < count ? request->starts[i + 1] : request->size;
        lk_posted posted = {request->body + begin, end - begin, name, crop, false};
        posted.drawing = lk_posted_is_drawing(posted.bytes, posted.size);
        lk_image_options limits = {.max_bytes = server->options.max_upload_bytes, .max_pixels = left};
        if (posted.drawing && most / count < left) limits.max_pixels = most / count + 1;
        if (count > 1) snprintf(name, sizeof name, "upload %zu", i + 1);
        s = left ? lk_posted_load(server->searcher, &posted, &limits, &out->images[i],
                                  detailed ? &out->details[i] : NULL, &pixels)
                 : LK_LIMIT;
        out->count++;
        if (s == LK_LIMIT && i > 0 && !(posted.drawing && left))
            lk_fail(s, "%s: the pictures of one form have more than %g megapixels together", name, (double)most / 1e6);
        left -= s == LK_OK && pixels < left ? pixels : left;
    }
    if (s != LK_OK) free_uploads(out);
    return s;
}

static enum MHD_Result route_search(lk_request *request, bool post)
{
    lk_server *server = request->server;
    asked in;
    lk_results results = {0};
    uploads posted;
    const char *wrong = read_asked(request, &in);
    if (wrong) return lk_answer_error(request, 400, wrong);
    double started = lk_now();
    lk_query query = {.ids = in.ids, .n_ids = in.n_ids, .n_images = post ? request->pictures : 0};
    if (!post && in.n_ids == 0) return lk_answer_error(request, 400, "name a picture (?id=) or post one");
    if (!post && in.cropped) return lk_answer_error(request, 400, "crop goes with a posted picture");
    if (post && request->size == 0)
        return lk_answer_error(request, 400, "the body is a picture, or a form with pictures in its fields `image`");
    if (in.options.fuse == LK_FUSE_BEST && query.n_ids + query.n_images > MOST_BEST)
        return lk_answer_error(request, 400, "fuse=best searches for up to 16 pictures, one by one");
    lk_status s = lk_search_check(server->searcher, &query, &in.options);
    if (s == LK_UNSUPPORTED) return lk_answer_error(request, 400, lk_error_message());
    if (s != LK_OK) return answer_failure(request, s);
    if (post) {
        bool detailed = in.options.rerank == LK_RERANK_GEOMETRIC;
        s = read_uploads(request, in.cropped ? in.crop : NULL, detailed, &posted);
        if (s != LK_OK) return answer_failure(request, s);
        query.images = posted.images;
        query.details = detailed ? posted.details : NULL;
    }
    s = lk_search(server->searcher, &query, &in.options, &results);
    if (post) free_uploads(&posted);
    return answer_search(request, s, &results, started);
}

static enum MHD_Result route_metrics(lk_request *request)
{
    lk_server *server = request->server;
    char *text = NULL;
    int n = asprintf(
        &text,
        "# TYPE likeness_requests_total counter\nlikeness_requests_total %llu\n"
        "# TYPE likeness_failures_total counter\nlikeness_failures_total %llu\n"
        "# TYPE likeness_search_seconds summary\nlikeness_search_seconds_sum %.6f\nlikeness_search_seconds_count %llu\n"
        "# TYPE likeness_pictures gauge\nlikeness_pictures %zu\n",
        atomic_load(&server->requests), atomic_load(&server->failures),
        (double)atomic_load(&server->search_microseconds) / 1e6, atomic_load(&server->searches),
        lk_searcher_count(server->searcher));
    if (n < 0) return MHD_NO;
    return lk_answer_bytes(request, "text/plain; version=0.0.4", (uint8_t *)text, (size_t)n, "no-store");
}

static enum MHD_Result route_web(lk_request *request)
{
    const char *path = strcmp(request->path, "/") == 0 ? "/index.html" : request->path;
    for (size_t i = 0; i < lk_web_file_count; i++) {
        const lk_web_file *file = &lk_web_files[i];
        if (strcmp(file->path, path) != 0) continue;
        const char *known = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "If-None-Match");
        bool same = known && strcmp(known, file->tag) == 0;
        struct MHD_Response *response =
            MHD_create_response_from_buffer(same ? 0 : file->size, (void *)file->bytes, MHD_RESPMEM_PERSISTENT);
        if (response) MHD_add_response_header(response, "ETag", file->tag);
        return send_response(request, same ? 304 : 200, file->type, response, "no-cache");
    }
    return lk_answer_error(request, 404, "there is nothing at this address");
}

enum MHD_Result lk_route(lk_request *request)
{
    const char *path = request->path;
    bool get = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0,
         post = strcmp(request->method, "POST") == 0;
    if (strcmp(path, "/api/v1/search") == 0 && (get || post)) return route_search(request, post);
    if (!get)
        return lk_answer_error(request, 405, "this address is for reading; pictures are posted to /api/v1/search");
    if (strcmp(path, "/healthz") == 0) return lk_answer_json(request, 200, json_pack("{s:s}", "status", "ok"));
    if (strcmp(path, "/metrics") == 0) return route_metrics(request);
    if (strcmp(path, "/api/v1/info") == 0) return route_info(request);
    if (strcmp(path, "/api/v1/images") == 0) return route_page(request);
    int64_t id = 0;
    int end = 0;
    if (sscanf(path, "/api/v1/images/%18" SCNd64 "%n", &id, &end) == 1 && id > 0) {
        if (path[end] == 0) return route_record(request, id);
        if (strcmp(path + end, "/file") == 0) return route_file(request, id);
    }
    return route_web(request);
}
