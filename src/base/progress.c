#include "base/progress.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct lk_progress {
    FILE *stream;
    bool terminal, drawn, finished;
    char job[64];
    double started, last; /* lk_now of the job's first update, of the last output */
    uint64_t first;       /* done at the first update: a resumed job must not count that as speed */
};

lk_progress *lk_progress_new(FILE *stream)
{
    lk_progress *p = lk_alloc_zero(1, sizeof *p);
    if (!p) return NULL;
    p->stream = stream;
    const char *term = getenv("TERM");
    p->terminal = isatty(fileno(stream)) && !(term && strcmp(term, "dumb") == 0);
    return p;
}

void lk_progress_free(lk_progress *p)
{
    if (!p) return;
    lk_progress_clear(p);
    free(p);
}

void lk_progress_clear(lk_progress *p)
{
    if (!p || !p->drawn) return;
    fputs("\r\033[K", p->stream);
    fflush(p->stream);
    p->drawn = false;
    p->last = 0; /* the next update draws at once */
}

/* "1h 02m", "3m 20s", "12s" */
static void format_seconds(double seconds, char out[32])
{
    uint64_t s = seconds > 0 ? (uint64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(out, 32, "%lluh %02llum", (unsigned long long)(s / 3600), (unsigned long long)(s / 60 % 60));
    else if (s >= 60)
        snprintf(out, 32, "%llum %02llus", (unsigned long long)(s / 60), (unsigned long long)(s % 60));
    else
        snprintf(out, 32, "%llus", (unsigned long long)s);
}

static void draw_bar(const lk_progress *p, double share)
{
    struct winsize size;
    int columns = ioctl(fileno(p->stream), TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int width = columns - 60;
    if (width > 40) width = 40;
    if (width < 5) return;
    int full = (int)(share * width);
    fputc('[', p->stream);
    for (int i = 0; i < width; i++) fputc(i < full ? '=' : i == full ? '>' : ' ', p->stream);
    fputs("] ", p->stream);
}

void lk_progress_update(void *user, const char *job, uint64_t done, uint64_t total)
{
    lk_progress *p = user;
    double now = lk_now();
    if (strncmp(p->job, job, sizeof p->job - 1) != 0 || (p->finished && done < total)) {
        if (p->drawn) fputc('\n', p->stream);
        p->drawn = p->finished = false;
        snprintf(p->job, sizeof p->job, "%s", job);
        p->started = now;
        p->last = p->terminal ? 0 : now; /* a log gets its first line only when the job takes long */
        p->first = done;
    }
    if (p->finished) return;
    bool end = total > 0 && done >= total;
    if (!end && now - p->last < (p->terminal ? 0.1 : 10.0)) return;
    p->last = now;
    double elapsed = now - p->started, rate = elapsed > 0 ? (double)(done - p->first) / elapsed : 0;
    char left[32], took[32];
    format_seconds(rate > 0 && total > done ? (double)(total - done) / rate : 0, left);
    format_seconds(elapsed, took);
    if (p->terminal) fputs("\r\033[K", p->stream);
    fprintf(p->stream, "%s ", p->job);
    if (total > 0) {
        double share = (double)done / (double)total;
        if (p->terminal) draw_bar(p, share);
        fprintf(p->stream, "%3.0f%% %llu/%llu", share * 100, (unsigned long long)done, (unsigned long long)total);
    } else {
        fprintf(p->stream, "%llu", (unsigned long long)done);
    }
    if (rate > 0) fprintf(p->stream, rate < 10 ? " %.1f/s" : " %.0f/s", rate);
    if (end)
        fprintf(p->stream, " in %s\n", took);
    else if (total > 0 && rate > 0)
        fprintf(p->stream, " %s left", left);
    if (!end && !p->terminal) fputc('\n', p->stream);
    p->drawn = p->terminal && !end;
    p->finished = end;
    fflush(p->stream);
}
