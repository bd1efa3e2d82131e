/* Starting libvips once, and its errors in our words. */
#ifndef LK_IMAGE_VIPS_H
#define LK_IMAGE_VIPS_H

#include <likeness/status.h>
#include <stdbool.h>
#include <vips/vips.h>

/* Before any other use of libvips; cheap when started already; any thread. LK_UNSUPPORTED when it cannot start. */
lk_status lk_vips_start(void);
/* Before HEIF and AVIF are loaded, which libvips may have in a module of its own. */
void lk_vips_with_heif(void);

/* Damaged pictures make libraries talk on stderr through GLib; what is wrong comes back in our own message. */
void lk_silence(const char *domain);

/* Takes libvips' error text and clears it. Leaves "<name>: cannot be <done> as <format>: <reason>" with LK_CORRUPT, or
 * LK_UNSUPPORTED when libvips says so, or LK_NO_MEMORY. */
lk_status lk_vips_fail(const char *name, const char *done, const char *format);

/* *image = *next of an operation that returned `failed`, dropping the old image. Returns whether it succeeded. */
bool lk_vips_step(VipsImage **image, int failed, VipsImage **next);

#endif
