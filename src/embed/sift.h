/* Local descriptors: SIFT (Lowe, 2004) as RootSIFT (Arandjelovic & Zisserman, 2012), from two places in a picture.
 *
 * Keypoints are where the scale space has its extrema; their descriptors turn with the picture. A regular grid over the
 * picture's content at several scales, upright, adds what keypoints miss: flat shapes with few corners, of which logos
 * are full, and the layout of the whole. Both are described with the same 128 numbers, so one vocabulary serves both.
 */
#ifndef LK_EMBED_SIFT_H
#define LK_EMBED_SIFT_H

#include <likeness/image.h>
#include <stddef.h>

enum { LK_SIFT_DIM = 128 };

typedef struct lk_sift_options {
    size_t max_keypoints; /* the strongest (by contrast) are kept; 0 = no keypoints */
    unsigned grid_side;   /* content is brought to this longer side before the grid is laid; 0 = no grid */
    unsigned grid_step;   /* pixels between grid points */
} lk_sift_options;

/* Where a descriptor comes from, in pixels of the picture given. */
typedef struct lk_sift_place {
    float x, y, scale, angle;
} lk_sift_place;

typedef struct lk_sift {
    float *descriptors;    /* [count][LK_SIFT_DIM], each of unit length */
    lk_sift_place *places; /* [keypoints]: those of the grid have none */
    size_t count, keypoints;
} lk_sift;

/* Describes a grey picture (channels 1). A picture without any contrast has count 0. LK_INVALID, LK_NO_MEMORY. */
lk_status lk_sift_describe(const lk_image *grey, const lk_sift_options *options, lk_sift *out);
/* The same of a picture of any channels: Rec. 709 luma of the sRGB values, transparent pixels on white. */
lk_status lk_sift_describe_picture(const lk_image *image, const lk_sift_options *options, lk_sift *out);
void lk_sift_free(lk_sift *sift);

/* RootSIFT in place: divide by the sum, take square roots; the result has unit length. A zero vector stays zero. */
void lk_root_sift(float descriptor[LK_SIFT_DIM]);

#endif
