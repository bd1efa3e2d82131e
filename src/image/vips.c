#include "image/vips.h"

#include "base/error.h"
#include "late/late.h"

#include <dlfcn.h>
#include <gmodule.h>
#include <pthread.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool started;

static void drop_line(const char *domain, GLogLevelFlags level, const char *text, void *user)
{
    (void)domain, (void)level, (void)text, (void)user;
}

void lk_silence(const char *domain)
{
    g_log_set_handler(
        domain, G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG,
        drop_line, NULL);
}

static void start(void)
{
    lk_silence("VIPS");
    /* Where libvips is told to look there are no modules: those for PDF, slides, JPEG XL and ImageMagick, which we
     * never use, take a fifth of a search's time to load. */
    const char *home = g_getenv("VIPSHOME");
    char *before = g_strdup(home);
    g_setenv("VIPSHOME", "/nonexistent", TRUE);
    bool failed = vips_init("likeness") != 0;
    if (before)
        g_setenv("VIPSHOME", before, TRUE);
    else
        g_unsetenv("VIPSHOME");
    g_free(before);
    if (failed) return;
    vips_concurrency_set(1); /* many pictures are decoded side by side: threads within one would only compete */
    vips_cache_set_max(0);   /* no picture is asked for twice */
    /* We name the loader for bytes that we have looked at, so no other can run; this is the second lock on that door.
     * It shuts ImageMagick, PDF, and libvips' SVG loader (svg.c renders drawings). */
    vips_block_untrusted_set(TRUE);
    started = true;
}

lk_status lk_vips_start(void)
{
    const char *missing = lk_late_try("libvips");
    if (missing) return lk_fail(LK_UNSUPPORTED, "%s", missing);
    pthread_once(&once, start);
    return started ? LK_OK : lk_fail(LK_UNSUPPORTED, "libvips could not be started");
}

/* The module lies beside libvips, as its installation puts it. Where HEIF is part of libvips itself there is nothing to
 * do. */
static void load_heif(void)
{
    Dl_info info;
    if (vips_type_find("VipsOperation", "heifload_buffer") != 0 ||
        !dladdr(lk_late_symbol("libvips", "vips_version"), &info))
        return;
    char *folder = g_path_get_dirname(info.dli_fname);
    char *path =
        g_strdup_printf("%s/vips-modules-%d.%d/vips-heif." G_MODULE_SUFFIX, folder, vips_version(0), vips_version(1));
    g_module_open(path,
                  G_MODULE_BIND_LAZY); /* registers the loader, and stays; without it the loader is missed by name */
    g_free(path);
    g_free(folder);
}

void lk_vips_with_heif(void)
{
    static pthread_once_t heif = PTHREAD_ONCE_INIT;
    pthread_once(&heif, load_heif);
}

/* The line of `texts` that speaks of the format, past its "domain: "; NULL when there is none. libvips keeps one buffer
 * for all threads, so other threads' failures may stand in it: a line about another format is surely not ours. */
static const char *reason(char *texts, const char *format)
{
    const char *last = NULL;
    char *next;
    for (char *line = strtok_r(texts, "\n", &next); line; line = strtok_r(NULL, "\n", &next)) {
        const char *words[] = {format, strcmp(format, "AVIF") == 0 ? "heif" : format};
        for (size_t i = 0; i < 2; i++)
            if (strcasestr(line, words[i])) last = line;
    }
    const char *colon = last ? strstr(last, ": ") : NULL;
    return colon ? colon + 2 : last;
}

lk_status lk_vips_fail(const char *name, const char *done, const char *format)
{
    char *texts = vips_error_buffer_copy();
    const char *why = reason(texts, format);
    lk_status s = LK_CORRUPT;
    if (why && strcasestr(why, "unsupported")) s = LK_UNSUPPORTED;
    if (why && strcasestr(why, "out of memory")) s = LK_NO_MEMORY;
    lk_fail(s, "%s: cannot be %s as %s: %s", name, done, format, why ? why : "the bytes are damaged");
    g_free(texts);
    return s;
}

bool lk_vips_step(VipsImage **image, int failed, VipsImage **next)
{
    if (failed) return false;
    g_object_unref(*image);
    *image = *next;
    return true;
}
