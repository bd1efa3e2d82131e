#include "train/pictures.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES = 2, ENLARGE = 2 }; /* pictures are kept at twice the network's size */

typedef struct job {
    lk_pictures *pictures;
    uint32_t row; /* of the training part */
    uint64_t epoch, place;
    float *out;
    lk_status status;
    char message[LK_ERROR_SIZE];
} job;

typedef struct flight {
    size_t count;
    job *jobs; /* [capacity] */
    size_t capacity;
} flight;

struct lk_pictures {
    lk_context *context;
    const lk_train_data *data;
    lk_pictures_options options;
    _Atomic(lk_image *) *kept; /* [count]: framed; NULL = not kept */
    _Atomic(uint8_t) *bad;     /* [count]: could not be decoded */
    atomic_uint_fast64_t bytes, unreadable;
    lk_ordered *pipeline;
    flight flights[BATCHES];
    size_t begun, finished;
};

/* ---- decoding ---- */

/* Lays the content of a picture into the middle of a square with the margin that the network's frame has. */
static lk_status frame(const lk_pictures *p, lk_image *image)
{
    const lk_preprocess *how = &p->options.prepare;
    uint32_t box[4] = {0, 0, image->width, image->height};
    uint8_t ground[3];
    if (how->fit == LK_FIT_SQUASH) return LK_OK;
    lk_image_content(image, how->fit == LK_FIT_TRIM ? box : (uint32_t[4]){0}, ground);
    uint32_t longer = box[2] > box[3] ? box[2] : box[3];
    uint32_t side = (uint32_t)lround((double)longer * how->size[0] / how->resize[0]);
    if (side < longer) side = longer;
    lk_image square = {.width = side,
                       .height = side,
                       .channels = image->channels,
                       .source_width = image->source_width,
                       .source_height = image->source_height};
    size_t n = image->channels;
    square.pixels = lk_alloc((size_t)side * side, n);
    if (!square.pixels) return lk_fail_memory("picture");
    bool clear = n == 4;
    for (size_t i = 0; i < (size_t)side * side; i++)
        for (size_t k = 0; k < n; k++) square.pixels[i * n + k] = k == 3 ? 0 : clear ? 255 : ground[k];
    uint32_t left = (side - box[2]) / 2, top = (side - box[3]) / 2;
    for (uint32_t y = 0; y < box[3]; y++)
        memcpy(square.pixels + ((size_t)(top + y) * side + left) * n,
               image->pixels + ((size_t)(box[1] + y) * image->width + box[0]) * n, box[2] * n);
    lk_image_free(image);
    *image = square;
    return LK_OK;
}

/* Drops an alpha channel that says nothing, so that a photograph stored as PNG keeps its own ground. */
static void drop_opaque(lk_image *image)
{
    size_t n = (size_t)image->width * image->height;
    if (image->channels != 4) return;
    for (size_t i = 0; i < n; i++)
        if (image->pixels[4 * i + 3] != 255) return;
    for (size_t i = 0; i < n; i++) memmove(image->pixels + 3 * i, image->pixels + 4 * i, 3);
    image->channels = 3;
}

static lk_status decode(lk_pictures *p, uint32_t picture, lk_image *out)
{
    lk_image_options options = lk_image_default_options();
    const lk_preprocess *how = &p->options.prepare;
    options.max_side = ENLARGE * (how->size[0] > how->size[1] ? how->size[0] : how->size[1]);
    options.colour = LK_COLOUR_RGBA;
    lk_status s = lk_image_load(p->data->paths[picture], &options, out);
    if (s != LK_OK) return s;
    drop_opaque(out);
    s = frame(p, out);
    if (s != LK_OK) lk_image_free(out);
    return s;
}

/* The decoded picture; *own says whether the caller frees it. */
static lk_status take(lk_pictures *p, uint32_t picture, lk_image *out, bool *own)
{
    lk_image *known = atomic_load(&p->kept[picture]), *none = NULL;
    *own = false;
    if (known) {
        *out = *known;
        return LK_OK;
    }
    if (atomic_load(&p->bad[picture])) return lk_fail(LK_CORRUPT, "%s: cannot be read", p->data->paths[picture]);
    lk_status s = decode(p, picture, out);
    if (s == LK_NO_MEMORY) return s;
    if (s != LK_OK) {
        if (!atomic_exchange(&p->bad[picture], 1)) {
            atomic_fetch_add(&p->unreadable, 1);
            lk_log(p->context, LK_LOG_WARN, "left out %s", lk_error_message());
        }
        return s;
    }
    *own = true;
    size_t bytes = (size_t)out->width * out->height * out->channels + sizeof *out;
    if (atomic_fetch_add(&p->bytes, bytes) + bytes > p->options.memory || !(known = malloc(sizeof *known))) {
        atomic_fetch_sub(&p->bytes, bytes);
        return LK_OK;
    }
    *known = *out;
    if (atomic_compare_exchange_strong(&p->kept[picture], &none, known)) {
        *own = false;
    } else {
        atomic_fetch_sub(&p->bytes, bytes);
        free(known);
    }
    return LK_OK;
}

/* ---- to the network's numbers ---- */

static void normalise(const lk_preprocess *how, const lk_image *image, float *out)
{
    size_t plane = (size_t)how->size[0] * how->size[1];
    for (int c = 0; c < 3; c++) {
        float scale = how->scale / how->std[c], shift = -how->mean[c] / how->std[c];
        for (size_t i = 0; i < plane; i++) out[(size_t)c * plane + i] = (float)image->pixels[3 * i + c] * scale + shift;
    }
}

static lk_status augment(lk_pictures *p, const lk_image *image, uint64_t epoch, uint64_t place, float *out)
{
    const lk_preprocess *how = &p->options.prepare;
    lk_augment_plan plan = lk_augment_plain(image->width, image->height, how->size[1], how->size[0]);
    lk_image made = {0};
    lk_status s = LK_OK;
    if (!p->options.augment.width && image->width == how->size[1] && image->height == how->size[0] &&
        image->channels == 3) { /* as it is */
        normalise(how, image, out);
        return LK_OK;
    }
    if (p->options.augment.width)
        s = lk_augment_draw(&p->options.augment, image->width, image->height, p->options.seed, epoch, place, &plan);
    if (s == LK_OK) s = lk_augment_apply(&plan, image, &made);
    if (s == LK_OK) normalise(how, &made, out);
    lk_image_free(&made);
    return s;
}

/* The next row of the same class, around. */
static uint32_t next_of_class(const lk_train_part *part, uint32_t row)
{
    for (size_t k = 1; k <= part->count; k++) {
        uint32_t other = (uint32_t)((row + k) % part->count);
        if (part->classes[other] == part->classes[row]) return other;
    }
    return row;
}

static lk_status make(lk_pictures *p, const job *j)
{
    const lk_train_part *part = &p->data->training;
    lk_image image;
    bool own;
    lk_status s = LK_OK;
    for (uint32_t row = j->row;;) {
        uint32_t picture = part->pictures[row];
        s = take(p, picture, &image, &own);
        if (s == LK_OK) {
            s = augment(p, &image, j->epoch, j->place << 32 | picture, j->out);
            if (own) lk_image_free(&image);
            return s;
        }
        row = next_of_class(part, row);
        if (s == LK_NO_MEMORY || row == j->row) break;
    }
    if (s == LK_NO_MEMORY) return s;
    /* A class of which nothing is left: nothing but ground, so that the rest of the training goes on. */
    size_t n = (size_t)p->options.prepare.size[0] * p->options.prepare.size[1] * 3;
    memset(j->out, 0, n * sizeof *j->out);
    return atomic_load(&p->unreadable) >= p->data->count ? lk_fail(LK_CORRUPT, "none of the pictures can be read")
                                                         : LK_OK;
}

static void work(void *user)
{
    job *j = user;
    j->status = make(j->pictures, j);
    if (j->status != LK_OK) strcpy(j->message, lk_error_message());
}

lk_status lk_pictures_begin(lk_pictures *p, const uint32_t *rows, size_t n, uint64_t epoch, uint64_t first, float *out)
{
    flight *f = &p->flights[p->begun % BATCHES];
    size_t size = (size_t)p->options.prepare.size[0] * p->options.prepare.size[1] * 3;
    if (p->begun - p->finished >= BATCHES) return lk_fail(LK_INVALID, "two batches are under way already");
    if (n > f->capacity) {
        free(f->jobs);
        f->capacity = 0;
        f->jobs = lk_alloc(n, sizeof *f->jobs);
        if (!f->jobs) return lk_fail_memory("batch");
        f->capacity = n;
    }
    for (size_t i = 0; i < n; i++) {
        f->jobs[i] = (job){.pictures = p, .row = rows[i], .epoch = epoch, .place = first + i, .out = out + i * size};
        lk_ordered_submit(p->pipeline, &f->jobs[i]);
    }
    f->count = n;
    p->begun++;
    return LK_OK;
}

lk_status lk_pictures_finish(lk_pictures *p)
{
    flight *f = &p->flights[p->finished % BATCHES];
    lk_status s = LK_OK;
    for (size_t i = 0; i < f->count; i++) {
        job *j = lk_ordered_take(p->pipeline);
        if (s == LK_OK && j->status != LK_OK) s = lk_fail(j->status, "%s", j->message);
    }
    p->finished++;
    return s;
}

lk_status lk_pictures_plain(lk_pictures *p, uint32_t picture, uint64_t view, float *out)
{
    lk_image image;
    bool own;
    lk_status s;
    if (!view) { /* exactly what an embedder does */
        lk_image_options options = lk_image_default_options();
        const lk_preprocess *how = &p->options.prepare;
        options.max_side = 3 * (how->size[0] > how->size[1] ? how->size[0] : how->size[1]);
        s = lk_image_load(p->data->paths[picture], &options, &image);
        if (s == LK_OK) s = lk_preprocess_run(how, &image, out);
        lk_image_free(&image);
        return s;
    }
    s = take(p, picture, &image, &own);
    if (s != LK_OK) return s;
    s = augment(p, &image, UINT64_MAX - view, picture, out);
    if (own) lk_image_free(&image);
    return s;
}

uint64_t lk_pictures_unreadable(const lk_pictures *p)
{
    return atomic_load(&p->unreadable);
}

lk_status lk_pictures_new(lk_context *context, const lk_train_data *data, const lk_pictures_options *options,
                          lk_pictures **out)
{
    lk_pictures *p = lk_alloc_zero(1, sizeof *p);
    *out = NULL;
    if (!p) return lk_fail_memory("pictures");
    p->context = context;
    p->data = data;
    p->options = *options;
    p->kept = lk_alloc_zero(data->count, sizeof *p->kept);
    p->bad = lk_alloc_zero(data->count, sizeof *p->bad);
    lk_status s = p->kept && p->bad ? LK_OK : lk_fail_memory("pictures");
    if (s == LK_OK) s = lk_ordered_new(lk_context_pool(context), BATCHES * 4096, work, &p->pipeline);
    if (s == LK_OK)
        *out = p;
    else
        lk_pictures_free(p);
    return s;
}

void lk_pictures_free(lk_pictures *p)
{
    if (!p) return;
    while (p->begun > p->finished) lk_pictures_finish(p);
    lk_ordered_free(p->pipeline);
    for (size_t i = 0; p->kept && i < p->data->count; i++) {
        lk_image *image = atomic_load(&p->kept[i]);
        lk_image_free(image);
        free(image);
    }
    for (int i = 0; i < BATCHES; i++) free(p->flights[i].jobs);
    free((void *)p->kept);
    free((void *)p->bad);
    free(p);
}
