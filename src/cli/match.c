/* likeness match: what two pictures share. */
#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

static int run(int argc, char **argv);
const cli_command cli_match = {"match", "A B [--html FILE] [--png FILE] [--homography] [--json]",
                               "Compare the local features of two pictures and draw those that agree on one transform",
                               run};

enum { SIDE = 512 };

/* Where the drawing goes. */
typedef struct output {
    const char *png, *html, *a, *b, *kind;
} output;

static lk_status draw(const output *to, const lk_image *a, const lk_image *b, const lk_picture_match *match)
{
    lk_image picture;
    uint8_t *bytes = NULL;
    size_t size;
    if (!to->png && !to->html) return LK_OK;
    lk_status s = lk_draw_match(a, b, match, &picture);
    if (s == LK_OK) s = lk_image_encode(&picture, LK_FORMAT_PNG, 100, &bytes, &size);
    if (s == LK_OK && to->png) s = lk_file_write_atomic(to->png, bytes, size);
    if (s == LK_OK && to->html) s = cli_write_match_page(to->html, to->a, to->b, match, to->kind, bytes, size);
    lk_image_free(&picture);
    free(bytes);
    return s;
}

static json_t *match_json(const lk_picture_match *m)
{
    json_t *transform = json_array(), *pairs = json_array();
    for (int i = 0; i < 9; i++) json_array_append_new(transform, json_real(m->transform[i]));
    for (size_t i = 0; i < m->count; i++)
        json_array_append_new(pairs, json_pack("{s:[f,f], s:[f,f], s:b}", "a", m->pairs[i].a.x, m->pairs[i].a.y, "b",
                                               m->pairs[i].b.x, m->pairs[i].b.y, "inlier", m->pairs[i].inlier));
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "features_a", (json_int_t)m->features_a, "features_b",
                     (json_int_t)m->features_b, "matches", (json_int_t)m->count, "inliers", (json_int_t)m->inliers,
                     "transform", transform, "pairs", pairs);
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    output to = {0};
    bool homography = false, json = false;
    const cli_option options[] = {
        {.name = "--png", .value = "FILE", .help = "draw both pictures with a line for every pair", .text = &to.png},
        {.name = "--html", .value = "FILE", .help = "write a page with the drawing and the numbers", .text = &to.html},
        {.name = "--homography", .help = "allow perspective (default: an affine map)", .flag = &homography},
        {.name = "--json",
         .help = "print pairs and transform, in pixels of the pictures at a longer side of 512",
         .flag = &json},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_match, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 2) return cli_usage(&cli_match, "two pictures are wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_image a = {0}, b = {0};
    lk_picture_match match = {0};
    lk_image_options decoding = lk_image_default_options();
    decoding.max_side = SIDE;
    lk_status s = lk_image_load(argv[0], &decoding, &a);
    if (s == LK_OK) s = lk_image_load(argv[1], &decoding, &b);
    if (s == LK_OK) s = lk_match_pictures(&a, &b, homography ? LK_HOMOGRAPHY : LK_AFFINE, &match);
    to.a = argv[0];
    to.b = argv[1];
    to.kind = homography ? "a homography" : "an affine map";
    if (s == LK_OK) s = draw(&to, &a, &b, &match);
    if (s != LK_OK)
        status = cli_fail("match");
    else if (json)
        status = cli_print_json(match_json(&match));
    else
        printf("%zu and %zu features, %zu alike, %zu of them agree on %s\n", match.features_a, match.features_b,
               match.count, match.inliers, to.kind);
    lk_picture_match_free(&match);
    lk_image_free(&a);
    lk_image_free(&b);
    cli_context_free(context);
    return status;
}
