/* Local features in a compact form: what geometric verification needs of a picture, 70 bytes a keypoint.
 *
 * A descriptor is a RootSIFT of which every component takes four bits: 50 times the component, rounded, at most 15. The
 * step of 0.02 is a fifth of a component's root mean square and costs a hundredth of the distance between descriptors
 * that are strangers. Places, sizes and directions are rounded to what the comparison can tell apart. */
#ifndef LK_EMBED_LOCAL_H
#define LK_EMBED_LOCAL_H

#include <likeness/image.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LK_LOCAL_VERSION = 1, /* of everything that decides what the bytes are: the numbers below, SIFT, the coding */
    LK_LOCAL_SIDE = 320,  /* pictures are described at this longer side */
    LK_LOCAL_MOST = 300,  /* keypoints of a picture */
    LK_LOCAL_CODE = 64    /* bytes of a descriptor */
};

typedef struct lk_local_point {
    float x, y, scale, angle; /* pixels of the picture that was described; radians */
} lk_local_point;

typedef struct lk_local {
    uint32_t count, width, height; /* keypoints; pixels of the picture */
    lk_local_point *points;        /* [count] */
    uint8_t *codes;                /* [count][LK_LOCAL_CODE]: component 2b in the low half of byte b */
} lk_local;

/* Describes a picture of any channels as it is; bring it to LK_LOCAL_SIDE first. What comes out is what packing and
 * unpacking would give. LK_NO_MEMORY. */
lk_status lk_local_describe(const lk_image *image, lk_local *out);
/* The same of a file. LK_NOT_FOUND, LK_CORRUPT and what else lk_image_load says. */
lk_status lk_local_describe_file(const char *path, lk_local *out);
void lk_local_free(lk_local *local);

/* Bytes to keep: *bytes is freed by the caller. LK_NO_MEMORY. */
lk_status lk_local_pack(const lk_local *local, uint8_t **bytes, size_t *size);
/* LK_CORRUPT when the bytes are no features. */
lk_status lk_local_unpack(const uint8_t *bytes, size_t size, lk_local *out);

#endif
