/* Applying the plan of an augmentation: geometry, then ink and ground, then colour, blur and erasure. */
#include "image/augment.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A picture under way: colours 0..255, and how much of each pixel is ink. */
typedef struct canvas {
    uint32_t width, height;
    float *rgb;   /* [height][width][3]; of ink alone (premultiplied) once split */
    float *cover; /* [height][width] 0..1 */
    float *spare; /* [height][width][3] */
    float ground[3];
    bool drawing; /* ink on a ground: cover means something */
} canvas;

static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- Geometry
 * ---------------------------------------------------------------------------------------------------------- */

static const uint8_t *pixel(const lk_image *image, long x, long y)
{
    return image->pixels + ((size_t)y * image->width + (size_t)x) * image->channels;
}

/* How many pixels of the border have (nearly) this colour, in sixteenths of the whole border. */
static int share_of_border(const lk_image *image, const uint8_t *colour)
{
    size_t alike = 0;
    long w = image->width, h = image->height, count = 2 * (w + h);
    for (long i = 0; i < count; i++) {
        long x = i < 2 * w ? i % w : i % 2 ? w - 1 : 0, y = i < 2 * w ? (i < w ? 0 : h - 1) : (i - 2 * w) / 2;
        const uint8_t *p = pixel(image, x, y);
        alike += abs(p[0] - colour[0]) + abs(p[1] - colour[1]) + abs(p[2] - colour[2]) <= 24;
    }
    return (int)(16 * alike / (size_t)count);
}

/* The ground: the commonest of the corners' colours. When half of the border has it (drawings may touch the border) the
 * picture is a drawing on a ground; so is every picture with transparency. */
static bool find_ground(const lk_image *image, float *ground)
{
    long w = image->width, h = image->height;
    const uint8_t *corners[4] = {pixel(image, 0, 0), pixel(image, w - 1, 0), pixel(image, 0, h - 1),
                                 pixel(image, w - 1, h - 1)};
    int best = 0, shares[4];
    if (image->channels == 4) {
        ground[0] = ground[1] = ground[2] = 255;
        for (size_t i = 0; i < (size_t)w * (size_t)h; i++)
            if (image->pixels[4 * i + 3] < 255) return true;
        return false;
    }
    for (int k = 0; k < 4; k++) {
        shares[k] = share_of_border(image, corners[k]);
        if (shares[k] > shares[best]) best = k;
    }
    for (int k = 0; k < 3; k++) ground[k] = corners[best][k];
    return shares[best] >= 8;
}

/* Adds a source pixel times weight; outside a drawing there is ground, outside a photograph its edge goes on. */
static void add(const lk_image *image, const canvas *c, long x, long y, float weight, float *sum, float *cover)
{
    if (x < 0 || y < 0 || x >= (long)image->width || y >= (long)image->height) {
        if (c->drawing) {
            if (image->channels == 3)
                for (int k = 0; k < 3; k++) sum[k] += weight * c->ground[k];
            return;
        }
        x = x < 0 ? 0 : x >= (long)image->width ? (long)image->width - 1 : x;
        y = y < 0 ? 0 : y >= (long)image->height ? (long)image->height - 1 : y;
    }
    const uint8_t *p = pixel(image, x, y);
    float alpha = image->channels == 4 ? weight * (float)p[3] / 255 : weight;
    for (int k = 0; k < 3; k++) sum[k] += alpha * p[k];
    *cover += alpha;
}

/* Bilinear sample at a point of the source. */
static void sample(const lk_image *image, const canvas *c, double x, double y, float weight, float *sum, float *cover)
{
    x = fmin(fmax(x, -1e6), 1e6) - 0.5;
    y = fmin(fmax(y, -1e6), 1e6) - 0.5;
    double left = floor(x), top = floor(y);
    float fx = (float)(x - left), fy = (float)(y - top);
    long i = (long)left, j = (long)top;
    if (image->channels == 3 && i >= 0 && j >= 0 && i + 1 < (long)image->width && j + 1 < (long)image->height) {
        const uint8_t *p = pixel(image, i, j), *q = p + 3 * (size_t)image->width;
        for (int k = 0; k < 3; k++) {
            float above = p[k] + fx * (float)(p[k + 3] - p[k]), below = q[k] + fx * (float)(q[k + 3] - q[k]);
            sum[k] += weight * (above + fy * (below - above));
        }
        *cover += weight;
        return;
    }
    add(image, c, i, j, weight * (1 - fx) * (1 - fy), sum, cover);
    if (fx > 0) add(image, c, i + 1, j, weight * fx * (1 - fy), sum, cover);
    if (fy > 0) add(image, c, i, j + 1, weight * (1 - fx) * fy, sum, cover);
    if (fx > 0 && fy > 0) add(image, c, i + 1, j + 1, weight * fx * fy, sum, cover);
}

static void map_point(const double *m, double x, double y, double *out)
{
    double w = m[6] * x + m[7] * y + m[8];
    out[0] = (m[0] * x + m[1] * y + m[2]) / w;
    out[1] = (m[3] * x + m[4] * y + m[5]) / w;
}

/* How many source pixels lie beside one another within a pixel of the result's middle. */
static double step_of(const lk_augment_plan *plan)
{
    double at[2], right[2], down[2], x = plan->width / 2.0, y = plan->height / 2.0;
    map_point(plan->matrix, x, y, at);
    map_point(plan->matrix, x + 1, y, right);
    map_point(plan->matrix, x, y + 1, down);
    return fmax(hypot(right[0] - at[0], right[1] - at[1]), hypot(down[0] - at[0], down[1] - at[1])) - 1e-9;
}

/* Mean of a block of up to f x f pixels, colours weighted by their opacity. */
static void mean_of_block(const lk_image *image, uint32_t left, uint32_t top, uint32_t f, uint8_t *out)
{
    uint32_t right = left + f < image->width ? left + f : image->width, sum[4] = {0}, count = 0;
    uint32_t bottom = top + f < image->height ? top + f : image->height;
    for (uint32_t y = top; y < bottom; y++)
        for (uint32_t x = left; x < right; x++, count++) {
            const uint8_t *p = pixel(image, x, y);
            uint32_t alpha = image->channels == 4 ? p[3] : 1;
            for (int k = 0; k < 3; k++) sum[k] += alpha * p[k];
            sum[3] += alpha;
        }
    for (int k = 0; k < 3; k++) out[k] = (uint8_t)(sum[3] ? (sum[k] + sum[3] / 2) / sum[3] : 0);
    if (image->channels == 4) out[3] = (uint8_t)((sum[3] + count / 2) / count);
}

/* A picture f times smaller: what is to be shrunk a lot is averaged once instead of sampled again and again. */
static lk_status shrink(const lk_image *image, uint32_t f, lk_image *out)
{
    *out = (lk_image){
        .width = (image->width + f - 1) / f, .height = (image->height + f - 1) / f, .channels = image->channels};
    out->pixels = lk_alloc((size_t)out->width * out->height, out->channels);
    if (!out->pixels) return lk_fail_memory("augmentation");
    for (uint32_t y = 0; y < out->height; y++)
        for (uint32_t x = 0; x < out->width; x++)
            mean_of_block(image, x * f, y * f, f, out->pixels + ((size_t)y * out->width + x) * out->channels);
    return LK_OK;
}

/* image: the source, already `f` times smaller. */
static void transform(const lk_augment_plan *plan, const lk_image *image, uint32_t f, canvas *c)
{
    double step = step_of(plan) / f, unit = 1 / (double)f;
    int n = step > 8 ? 8 : step > 1 ? (int)ceil(step) : 1;
    float weight = 1 / (float)(n * n);
    for (uint32_t y = 0; y < c->height; y++)
        for (uint32_t x = 0; x < c->width; x++) {
            float sum[3] = {0}, cover = 0;
            for (int k = 0; k < n * n; k++) {
                double at[2];
                map_point(plan->matrix, x + (k % n + 0.5) / n, y + (k / n + 0.5) / n, at);
                sample(image, c, at[0] * unit, at[1] * unit, weight, sum, &cover);
            }
            size_t i = (size_t)y * c->width + x;
            for (int k = 0; k < 3; k++) c->rgb[3 * i + k] = sum[k];
            c->cover[i] = cover;
        }
}

/* ---- Ink and ground
 * ---------------------------------------------------------------------------------------------------- */

static float distance_to(const float *p, const float *ground)
{
    return fmaxf(fabsf(p[0] - ground[0]), fmaxf(fabsf(p[1] - ground[1]), fabsf(p[2] - ground[2])));
}

/* An opaque drawing: a pixel is as much ink as its colour is away from the ground, measured by the farthest pixel.
 * Takes the ground's part out of the colours. False when all is ground. */
static bool split(canvas *c)
{
    size_t count = (size_t)c->width * c->height;
    float most = 0;
    for (size_t i = 0; i < count; i++) most = fmaxf(most, distance_to(c->rgb + 3 * i, c->ground));
    if (most < 16) return false;
    for (size_t i = 0; i < count; i++) {
        c->cover[i] = fminf(1, distance_to(c->rgb + 3 * i, c->ground) / most);
        for (int k = 0; k < 3; k++) c->rgb[3 * i + k] -= (1 - c->cover[i]) * c->ground[k];
    }
    return true;
}

/* Light inks cover little by the measure above; for a single colour they shall cover as much as dark ones. */
static void solidify(canvas *c)
{
    size_t count = (size_t)c->width * c->height;
    for (size_t i = 0; i < count; i++) c->cover[i] = fminf(1, 2.5f * c->cover[i]);
}

/* Cover becomes the difference of the largest and the smallest cover around: a line along every edge. */
static void trace(canvas *c)
{
    long w = c->width, h = c->height, reach = w > 128 ? w / 96 : 1;
    for (long y = 0; y < h; y++)
        for (long x = 0; x < w; x++) {
            float low = 1, high = 0;
            for (long j = y - reach; j <= y + reach; j++)
                for (long i = x - reach; i <= x + reach; i++) {
                    bool inside = i >= 0 && j >= 0 && i < w && j < h;
                    float cover = inside ? c->cover[j * w + i] : c->cover[y * w + x];
                    low = fminf(low, cover);
                    high = fmaxf(high, cover);
                }
            c->spare[y * w + x] = high - low;
        }
    memcpy(c->cover, c->spare, (size_t)w * (size_t)h * sizeof *c->cover);
}

static void restyle(const lk_augment_plan *plan, const lk_image *image, canvas *c)
{
    size_t count = (size_t)c->width * c->height;
    if (!c->drawing) return;
    bool opaque = image->channels == 3, change = plan->new_ground || plan->monochrome || plan->outline;
    if (opaque && (!change || !split(c))) return;
    float ground[3], ink[3];
    for (int k = 0; k < 3; k++) {
        ground[k] = plan->new_ground ? plan->ground[k] : c->ground[k];
        ink[k] = plan->ink[k];
    }
    if (!plan->new_ground) { /* the drawn ink was only promised to stand out from the drawn ground */
        float light = 0.2126f * ground[0] + 0.7152f * ground[1] + 0.0722f * ground[2];
        float own = 0.2126f * ink[0] + 0.7152f * ink[1] + 0.0722f * ink[2];
        for (int k = 0; fabsf(light - own) < 80 && k < 3; k++) ink[k] = light < 128 ? 255 : 0;
    }
    if (plan->monochrome || plan->outline) {
        if (opaque) solidify(c);
        if (plan->outline) trace(c);
        for (size_t i = 0; i < count; i++)
            for (int k = 0; k < 3; k++) c->rgb[3 * i + k] = c->cover[i] * ink[k];
    }
    for (size_t i = 0; i < count; i++)
        for (int k = 0; k < 3; k++) c->rgb[3 * i + k] += (1 - c->cover[i]) * ground[k];
}

/* ---- Colour, blur, erasure
 * --------------------------------------------------------------------------------------------- */

static float grey_of(const float *p)
{
    return 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2];
}

/* Hue is turned in YIQ, which keeps luma. */
static void hue_matrix(float turn, float *m)
{
    static const double to[9] = {0.299, 0.587, 0.114, 0.595716, -0.274453, -0.321263, 0.211456, -0.522591, 0.311135};
    static const double from[9] = {1, 0.9563, 0.6210, 1, -0.2721, -0.6474, 1, -1.1070, 1.7046};
    double c = cos(2 * M_PI * (double)turn), s = sin(2 * M_PI * (double)turn), turned[9];
    for (int j = 0; j < 3; j++) {
        turned[j] = to[j];
        turned[3 + j] = c * to[3 + j] - s * to[6 + j];
        turned[6 + j] = s * to[3 + j] + c * to[6 + j];
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            m[3 * i + j] =
                (float)(from[3 * i] * turned[j] + from[3 * i + 1] * turned[3 + j] + from[3 * i + 2] * turned[6 + j]);
}

static void recolour(const lk_augment_plan *plan, canvas *c)
{
    size_t count = (size_t)c->width * c->height;
    double sum = 0;
    float hue[9];
    if (plan->invert)
        for (size_t i = 0; i < 3 * count; i++) c->rgb[i] = 255 - c->rgb[i];
    for (size_t i = 0; plan->brightness != 1 && i < 3 * count; i++)
        c->rgb[i] = clamp(c->rgb[i] * plan->brightness, 0, 255);
    for (size_t i = 0; i < count; i++) sum += (double)grey_of(c->rgb + 3 * i);
    float mean = (float)(sum / (double)count);
    for (size_t i = 0; plan->contrast != 1 && i < 3 * count; i++)
        c->rgb[i] = clamp(mean + plan->contrast * (c->rgb[i] - mean), 0, 255);
    hue_matrix(plan->hue, hue);
    for (size_t i = 0; i < count; i++) {
        float *p = c->rgb + 3 * i, grey = grey_of(p), q[3];
        for (int k = 0; plan->saturation != 1 && k < 3; k++)
            p[k] = clamp(grey + plan->saturation * (p[k] - grey), 0, 255);
        if (plan->hue == 0) continue;
        for (int k = 0; k < 3; k++) q[k] = hue[3 * k] * p[0] + hue[3 * k + 1] * p[1] + hue[3 * k + 2] * p[2];
        for (int k = 0; k < 3; k++) p[k] = clamp(q[k], 0, 255);
    }
}

/* One direction of a Gaussian blur; edges go on. step: floats from one pixel to the next, count pixels, lines of them.
 */
static void blur_lines(const float *from, float *to, size_t count, size_t step, size_t lines, size_t next,
                       const float *kernel, long reach)
{
    for (size_t line = 0; line < lines; line++)
        for (long i = 0; i < (long)count; i++)
            for (size_t k = 0; k < 3; k++) {
                float sum = 0;
                for (long r = -reach; r <= reach; r++) {
                    long j = i + r < 0 ? 0 : i + r >= (long)count ? (long)count - 1 : i + r;
                    sum += kernel[labs(r)] * from[line * next + (size_t)j * step + k];
                }
                to[line * next + (size_t)i * step + k] = sum;
            }
}

static void blur(const lk_augment_plan *plan, canvas *c)
{
    enum { REACH = 96 };
    float kernel[REACH + 1], total = 0;
    if (!(plan->sigma > 0)) return;
    long reach = (long)ceilf(3 * plan->sigma);
    if (reach > REACH) reach = REACH;
    for (long r = 0; r <= reach; r++) {
        kernel[r] = expf(-(float)(r * r) / (2 * plan->sigma * plan->sigma));
        total += r ? 2 * kernel[r] : kernel[r];
    }
    for (long r = 0; r <= reach; r++) kernel[r] /= total;
    blur_lines(c->rgb, c->spare, c->width, 3, c->height, 3 * (size_t)c->width, kernel, reach);
    blur_lines(c->spare, c->rgb, c->height, 3 * (size_t)c->width, c->width, 3, kernel, reach);
}

static void erase(const lk_augment_plan *plan, lk_image *out)
{
    for (uint32_t y = 0; plan->erased[2] && y < plan->erased[3]; y++)
        for (uint32_t x = 0; x < plan->erased[2]; x++)
            memcpy(out->pixels + (((size_t)plan->erased[1] + y) * out->width + plan->erased[0] + x) * 3, plan->eraser,
                   3);
}

lk_status lk_augment_apply(const lk_augment_plan *plan, const lk_image *image, lk_image *out)
{
    *out = (lk_image){0};
    if (!image->pixels || !image->width || !image->height || (image->channels != 3 && image->channels != 4))
        return lk_fail(LK_INVALID, "augmentation takes RGB and RGBA pictures");
    size_t count = (size_t)plan->width * plan->height;
    canvas c = {.width = plan->width, .height = plan->height};
    c.rgb = lk_alloc(count, 7 * sizeof *c.rgb);
    out->pixels = lk_alloc(count, 3);
    if (!c.rgb || !out->pixels) {
        free(c.rgb);
        lk_image_free(out);
        return lk_fail_memory("augmentation");
    }
    c.cover = c.rgb + 3 * count;
    c.spare = c.cover + count;
    c.drawing = find_ground(image, c.ground);
    double step = step_of(plan);
    lk_image smaller = {0};
    uint32_t f = step >= 2 ? (uint32_t)fmin(step + 1e-6, 64) : 1;
    if (f > 1 && shrink(image, f, &smaller)) {
        free(c.rgb);
        lk_image_free(out);
        return LK_NO_MEMORY;
    }
    transform(plan, f > 1 ? &smaller : image, f, &c);
    lk_image_free(&smaller);
    restyle(plan, image, &c);
    recolour(plan, &c);
    blur(plan, &c);
    for (size_t i = 0; i < 3 * count; i++) out->pixels[i] = (uint8_t)(clamp(c.rgb[i], 0, 255) + 0.5f);
    out->width = out->source_width = plan->width;
    out->height = out->source_height = plan->height;
    out->channels = 3;
    erase(plan, out);
    free(c.rgb);
    return LK_OK;
}
