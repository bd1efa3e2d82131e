/* The page about a training: curves, a map of the validation pictures, and what was most often confused. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 560,
    HEIGHT = 220,
    LEFT = 56,
    BOTTOM = 24,
    THUMB = 96,
    MAP_SIDE = 420,
    MAP_MOST = 1500,
    MAP_ROUNDS = 30
};

static void write_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else
            fputc(*text, out);
    }
}

/* ---- curves ---- */

typedef double (*value_fn)(const lk_train_epoch *e);
static double loss_of(const lk_train_epoch *e)
{
    return e->loss;
}
static double map_of(const lk_train_epoch *e)
{
    return e->map;
}
static double hit_of(const lk_train_epoch *e)
{
    return e->hit1;
}
static double rate_of(const lk_train_epoch *e)
{
    return e->rate;
}

static void write_line(FILE *out, const lk_train_epoch *e, size_t n, value_fn value, double most, const char *colour)
{
    fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (size_t i = 0; i < n; i++) {
        double x = LEFT + (WIDTH - LEFT - 8.0) * (n > 1 ? (double)i / (double)(n - 1) : 0.5);
        double y = 8 + (HEIGHT - BOTTOM - 8.0) * (1 - value(&e[i]) / most);
        fprintf(out, "%.1f,%.1f ", x, y);
    }
    fputs("\"/>", out);
}

static void write_chart(FILE *out, const char *title, const lk_train_epoch *e, size_t n, value_fn first,
                        const char *first_name, value_fn second, const char *second_name)
{
    double most = 1e-30;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, first(&e[i]));
        if (second) most = fmax(most, second(&e[i]));
    }
    fprintf(out, "<figure><figcaption>%s<span style=\"color:#2a6fdb\">%s</span>", title, first_name);
    if (second) fprintf(out, ", <span style=\"color:#c2410c\">%s</span>", second_name);
    fprintf(out, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\">", WIDTH, HEIGHT);
    for (int k = 0; k <= 4; k++) {
        double y = 8 + (HEIGHT - BOTTOM - 8.0) * (1 - k / 4.0);
        fprintf(out, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#8884\"/>", LEFT, WIDTH - 8, y, y);
        fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>", LEFT - 4, y + 4, most * k / 4);
    }
    fprintf(out, "<text x=\"%d\" y=\"%d\">epoch 1</text>", LEFT, HEIGHT - 6);
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%zu</text>", WIDTH - 8, HEIGHT - 6, n);
    write_line(out, e, n, first, most, "#2a6fdb");
    if (second) write_line(out, e, n, second, most, "#c2410c");
    fputs("</svg></figure>\n", out);
}

/* ---- map ---- */

/* The leading principal direction of rows [n][dim] that stands at right angles to `other`, by power iteration. */
static void principal(const float *rows, size_t n, size_t dim, const double *mean, const double *other, double *out)
{
    for (size_t k = 0; k < dim; k++) out[k] = 1.0 / (1 + (double)k) + (k % 3 == 0);
    double *next = lk_alloc_zero(dim, sizeof *next);
    for (int round = 0; next && round < MAP_ROUNDS; round++) {
        memset(next, 0, dim * sizeof *next);
        for (size_t i = 0; i < n; i++) {
            double along = 0;
            for (size_t k = 0; k < dim; k++) along += ((double)rows[i * dim + k] - mean[k]) * out[k];
            for (size_t k = 0; k < dim; k++) next[k] += along * ((double)rows[i * dim + k] - mean[k]);
        }
        double dot = 0, length = 0;
        for (size_t k = 0; other && k < dim; k++) dot += next[k] * other[k];
        for (size_t k = 0; k < dim; k++) {
            if (other) next[k] -= dot * other[k];
            length += next[k] * next[k];
        }
        if (length <= 0) break;
        for (size_t k = 0; k < dim; k++) out[k] = next[k] / sqrt(length);
    }
    free(next);
}

static void write_points(FILE *out, const lk_validation *v, size_t n, size_t dim, const double *mean, const double *one,
                         const double *two)
{
    double *xy = lk_alloc_zero(2 * n, sizeof *xy), most = 1e-12;
    for (size_t i = 0; xy && i < n; i++) {
        for (size_t k = 0; k < dim; k++) {
            double d = (double)v->vectors[i * dim + k] - mean[k];
            xy[2 * i] += d * one[k];
            xy[2 * i + 1] += d * two[k];
        }
        most = fmax(most, fmax(fabs(xy[2 * i]), fabs(xy[2 * i + 1])));
    }
    for (size_t i = 0; xy && i < n; i++) {
        size_t row = v->rows[i % v->count];
        uint32_t picture = v->data->validation.pictures[row];
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"hsl(%d 70%% 50%%)\"><title>",
                MAP_SIDE / 2.0 * (1 + 0.97 * xy[2 * i] / most), MAP_SIDE / 2.0 * (1 - 0.97 * xy[2 * i + 1] / most),
                (int)(v->data->validation.classes[row] * 137L % 360));
        write_escaped(out, v->data->names[picture]);
        fputs("</title></circle>", out);
    }
    free(xy);
}

static void write_map(FILE *out, const lk_validation *v, size_t dim)
{
    size_t n = v->count < MAP_MOST ? v->count : MAP_MOST;
    if (!v->vectors || n < 3) return;
    double *work = lk_alloc_zero(3 * dim, sizeof *work);
    if (!work) return;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < dim; k++) work[k] += (double)v->vectors[i * dim + k] / (double)n;
    principal(v->vectors, n, dim, work, NULL, work + dim);
    principal(v->vectors, n, dim, work, work + dim, work + 2 * dim);
    fprintf(out,
            "<h2>Validation pictures on their two principal components</h2><p>One colour a class; a tooltip names it."
            "</p><svg class=\"map\" viewBox=\"0 0 %d %d\" role=\"img\">",
            MAP_SIDE, MAP_SIDE);
    write_points(out, v, n, dim, work, work + dim, work + 2 * dim);
    fputs("</svg>\n", out);
    free(work);
}

/* ---- confusions ---- */

static void write_base64(FILE *out, const uint8_t *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        uint32_t v =
            (uint32_t)bytes[i] << 16 | (i + 1 < size ? bytes[i + 1] : 0u) << 8 | (i + 2 < size ? bytes[i + 2] : 0u);
        for (size_t k = 0; k < 4; k++) fputc(i + k <= size ? digits[v >> (18 - 6 * k) & 63] : '=', out);
    }
}

/* A picture that cannot be drawn leaves its name. */
static void write_picture(FILE *out, const lk_train_data *data, uint32_t picture)
{
    lk_image_options options = lk_image_default_options();
    lk_image image = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    options.max_side = THUMB;
    fputs("<td>", out);
    if (lk_image_load(data->paths[picture], &options, &image) == LK_OK &&
        lk_image_encode(&image, LK_FORMAT_JPEG, 80, &bytes, &size) == LK_OK) {
        fputs("<img alt=\"\" src=\"data:image/jpeg;base64,", out);
        write_base64(out, bytes, size);
        fputs("\">", out);
    }
    fputs("<br>", out);
    write_escaped(out, data->names[picture]);
    fputs("</td>", out);
    lk_image_free(&image);
    free(bytes);
}

static void write_confusions(FILE *out, const lk_train_data *data, const lk_validation *v)
{
    if (v->confusion_count == 0) return;
    fputs("<h2>Hardest confusions</h2><p>A validation picture, the picture that was found nearest though it is of "
          "another "
          "class, and the nearest of its own.</p><table><tr><th>query</th><th>found</th><th></th><th>should "
          "be</th><th></th>"
          "</tr>\n",
          out);
    for (size_t i = 0; i < v->confusion_count; i++) {
        const lk_confusion *c = &v->confusions[i];
        fputs("<tr>", out);
        write_picture(out, data, c->query);
        write_picture(out, data, c->wrong);
        fprintf(out, "<td>%.3f</td>", (double)c->wrong_score);
        write_picture(out, data, c->right);
        fprintf(out, "<td>%.3f</td></tr>\n", (double)c->right_score);
    }
    fputs("</table>\n", out);
}

static void write_page(FILE *out, const lk_network *net, const lk_train_data *data, const lk_train_epoch *epochs,
                       size_t count, const lk_validation *v, const char *reason)
{
    fputs("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Training</title><style>"
          "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color-scheme:light "
          "dark}"
          "figure{display:inline-block;margin:0 1em 1em "
          "0}svg{width:560px;max-width:100%;font-size:11px;fill:currentColor}"
          ".map{width:640px;background:#8881}td,th{padding:.3em .8em;text-align:center;font-size:12px}"
          "img{background:#fff;max-width:96px;max-height:96px}</style>\n<h1>Training</h1><p>",
          out);
    write_escaped(out, reason);
    fprintf(out, "</p><p>%s at %u px, %zu pictures", net->info.architecture, lk_network_side(net),
            data->training.count);
    if (data->multi)
        fprintf(out, " with %zu different labels", data->info.labels.classes);
    else if (data->labelled)
        fprintf(out, " of %zu classes", data->training.class_count);
    fprintf(out, "; %zu for validation; embeddings of %zu dimensions.</p>\n", data->validation.count, net->dim);
    write_chart(out, "", epochs, count, loss_of, "Loss", NULL, NULL);
    if (v->n > 1) write_chart(out, "Validation: ", epochs, count, map_of, "mAP", hit_of, "hit@1");
    write_chart(out, "", epochs, count, rate_of, "Learning rate", NULL, NULL);
    write_map(out, v, net->dim);
    write_confusions(out, data, v);
    fputs("</html>\n", out);
}

lk_status lk_train_report_write(const char *directory, const lk_network *net, const lk_train_data *data,
                                const lk_train_epoch *epochs, size_t count, const lk_validation *validation,
                                const char *reason)
{
    char *text = NULL, *path = lk_path_join(directory, "report.html");
    size_t size = 0;
    FILE *out = path ? open_memstream(&text, &size) : NULL;
    lk_status s = out ? LK_OK : lk_fail_memory("report");
    if (s != LK_OK) goto done;
    write_page(out, net, data, epochs, count, validation, reason);
    s = fclose(out) == 0 ? lk_file_write_atomic(path, text, size) : lk_fail_memory("report");
done:
    free(text);
    free(path);
    return s;
}
