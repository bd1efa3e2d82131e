/* Starting libvips once, and its errors in our words. */
#ifndef LK_IMAGE_VIPS_H
#define LK_IMAGE_VIPS_H

#include <likeness/status.h>
#include <vips/vips.h>

/* Before any other use of libvips; cheap when started already. LK_UNSUPPORTED when it cannot start. */
lk_status lk_vips_start(void);

/* Takes libvips' error texts (and clears them) into "<name>: cannot be decoded: <first line>". */
lk_status lk_vips_fail(lk_status status, const char *name);

#endif
