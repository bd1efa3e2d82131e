/* likeness remove: take pictures out of a collection. The files themselves are never touched. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_remove = {"remove", "COLLECTION.lk PATH|id:NUMBER... [--missing]",
                                "Take pictures out of a collection; their files stay", run};

typedef struct missing {
    int64_t *ids;
    size_t count, capacity;
} missing;

static lk_status find_missing(void *user, const lk_record *record)
{
    missing *m = user;
    if (lk_path_exists(record->path)) return LK_OK;
    if (!lk_grow((void **)&m->ids, &m->capacity, m->count + 1, sizeof *m->ids))
        return lk_fail_memory("list of pictures");
    m->ids[m->count++] = record->id;
    return LK_OK;
}

static lk_status remove_named(lk_collection *collection, const char *name)
{
    lk_record record;
    char *absolute = NULL, *end;
    lk_status s;
    if (strncmp(name, "id:", 3) == 0) {
        long long id = strtoll(name + 3, &end, 10);
        if (*end || end == name + 3) return lk_fail(LK_INVALID, "%s: an id is a number", name);
        return lk_collection_remove(collection, id);
    }
    s = lk_path_absolute(name, &absolute);
    if (s == LK_OK) s = lk_collection_find_path(collection, absolute, &record);
    if (s == LK_NOT_FOUND) lk_fail(s, "%s: is not in the collection", name);
    if (s == LK_OK) {
        s = lk_collection_remove(collection, record.id);
        lk_record_free(&record);
    }
    free(absolute);
    return s;
}

static int run(int argc, char **argv)
{
    bool gone = false;
    const cli_option options[] = {
        {.name = "--missing", .help = "remove every picture whose file no longer exists", .flag = &gone}};
    int count, status = cli_parse(&cli_remove, options, 1, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count < 1 || (count == 1 && !gone)) return cli_usage(&cli_remove, "a collection and what to remove are wanted");
    lk_collection *collection = NULL;
    missing m = {0};
    lk_status s;
    LK_TRY(lk_collection_open(argv[0], LK_WRITE, &collection));
    for (int i = 1; i < count; i++)
        LK_TRY(remove_named(collection, argv[i])); /* all or nothing: no commit before the end */
    if (gone) LK_TRY(lk_collection_each(collection, 0, find_missing, &m));
    for (size_t i = 0; i < m.count; i++) LK_TRY(lk_collection_remove(collection, m.ids[i]));
    LK_TRY(lk_collection_commit(collection));
    printf("%zu picture%s removed\n", (size_t)count - 1 + m.count, cli_s((size_t)count - 1 + m.count));
done:
    free(m.ids);
    lk_collection_close(collection);
    return s == LK_OK ? EXIT_DONE : cli_fail("remove: nothing was removed");
}
