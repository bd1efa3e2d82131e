#include "image/vips.h"

#include "base/error.h"

#include <pthread.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int started;

static void drop_log(const char *domain, GLogLevelFlags level, const char *text, void *user)
{
    (void)domain, (void)level, (void)text, (void)user;
}

static void start(void)
{
    if (vips_init("likeness") != 0) return;
    vips_concurrency_set(1); /* pictures are decoded side by side by our own threads */
    vips_cache_set_max(0);   /* no picture is asked for twice */
    /* Untrusted are, among others, ImageMagick and PDF. SVG counts as untrusted too, and is allowed on purpose: logos are
     * SVG. librsvg loads nothing from outside when it is given bytes instead of a file, and runs no scripts. */
    vips_block_untrusted_set(TRUE);
    vips_operation_block_set("VipsForeignLoadSvg", FALSE);
    /* Damaged pictures make the libraries below libvips talk on stderr; what is wrong comes back in our own error. */
    static const char *const domains[] = {"VIPS", "GLib", "GLib-GObject", "librsvg"};
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++)
        g_log_set_handler(domains[i], G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG,
                          drop_log, NULL);
    started = 1;
}

lk_status lk_vips_start(void)
{
    pthread_once(&once, start);
    if (!started) return lk_fail(LK_UNSUPPORTED, "libvips could not be started: %s", vips_error_buffer());
    return LK_OK;
}

lk_status lk_vips_fail(lk_status status, const char *name)
{
    /* The buffer is shared by all threads: another thread's text may be in it, so only ever use it as a hint. */
    char *texts = vips_error_buffer_copy();
    char *line = texts;
    while (*line == '\n') line++;
    line[strcspn(line, "\n")] = 0;
    lk_fail(status, "%s: cannot be decoded: %s", name, *line ? line : "the file is damaged");
    g_free(texts);
    return status;
}
