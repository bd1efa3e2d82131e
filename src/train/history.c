/* history.csv: one line an epoch, numbers written so that they read back the same. */
#include "base/error.h"
#include "base/file.h"
#include "train/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char heading[] = "epoch,loss,rate,seconds,images_per_second,mAP,hit@1,hit@10,nDCG@10,best\n";

lk_status lk_history_write(const char *directory, const lk_train_epoch *epochs, size_t count)
{
    char *text = NULL, *path = lk_path_join(directory, "history.csv");
    size_t size = 0;
    FILE *out = path ? open_memstream(&text, &size) : NULL;
    lk_status s = out ? LK_OK : lk_fail_memory("history");
    if (s != LK_OK) goto done;
    fputs(heading, out);
    for (size_t i = 0; i < count; i++) {
        const lk_train_epoch *e = &epochs[i];
        fprintf(out, "%u,%.17g,%.17g,%.3f,%.1f,%.17g,%.17g,%.17g,%.17g,%d\n", e->epoch, e->loss, e->rate, e->seconds,
                e->images_per_second, e->map, e->hit1, e->hit10, e->ndcg10, (int)e->best);
    }
    s = fclose(out) == 0 ? lk_file_write_atomic(path, text, size) : lk_fail_memory("history");
done:
    free(text);
    free(path);
    return s;
}

lk_status lk_history_read(const char *directory, lk_train_epoch *epochs, size_t count)
{
    uint8_t *text = NULL;
    size_t size, n = 0;
    if (count == 0) return LK_OK; /* killed before the first epoch was over */
    char *path = lk_path_join(directory, "history.csv");
    if (!path) return lk_fail_memory("history");
    lk_status s = lk_file_read(path, 64 << 20, &text, &size);
    char *line = s == LK_OK ? strchr((char *)text, '\n') : NULL;
    for (; line && n < count; line = strchr(line, '\n')) {
        lk_train_epoch *e = &epochs[n];
        int best;
        line++;
        if (sscanf(line, "%u,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%d", &e->epoch, &e->loss, &e->rate, &e->seconds,
                   &e->images_per_second, &e->map, &e->hit1, &e->hit10, &e->ndcg10, &best) != 10)
            break;
        e->best = best != 0;
        n++;
    }
    if (s == LK_OK && n < count) s = lk_fail(LK_CORRUPT, "%s: has fewer epochs than the checkpoint", path);
    free(text);
    free(path);
    return s;
}
