/* From a folder or a CSV to pictures with labels, parted into those that are trained on and those that validate. */
#include "train/data.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/hierarchy.h"

#include <jansson.h>
#include <likeness/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HOLD_OUT = 5, LEAST_CLASSES = 5, MISSING_NAMED = 5 };
enum { PART_OTHER, PART_TRAINING, PART_VALIDATION, PART_UNKNOWN };

/* Pictures as they were read, before parts are made. */
typedef struct table {
    lk_train_data *data;
    uint8_t *parts;    /* [count] */
    int32_t *label_of; /* [count] row in classes, -1 = none; several labels: the first */
    size_t *set_at;    /* [count + 1] */
    int32_t *sets;
    size_t set_count, set_capacity;
    const char **classes; /* sorted, distinct */
    size_t class_count;
    lk_level_source source; /* of a hierarchy */
    const char **keys;      /* [count], see lk_levels_read */
    int32_t *levels;        /* [count][levels] */
    bool split;
} table;

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int32_t find_class(const table *t, const char *name)
{
    const char **found = bsearch(&name, t->classes, t->class_count, sizeof *t->classes, compare_names);
    return found ? (int32_t)(found - t->classes) : -1;
}

static int part_of(const json_t *labels)
{
    const char *split = json_string_value(json_object_get(labels, "split"));
    if (!split) return PART_UNKNOWN;
    if (strcasecmp(split, "train") == 0 || strcasecmp(split, "training") == 0) return PART_TRAINING;
    if (strncasecmp(split, "val", 3) == 0 || strcasecmp(split, "dev") == 0) return PART_VALIDATION;
    return PART_OTHER;
}

/* A label as text; whole numbers in a CSV became numbers. */
static const char *label_text(lk_train_data *data, const json_t *value)
{
    char number[32];
    if (json_is_string(value)) return lk_arena_strdup(&data->arena, json_string_value(value));
    if (!json_is_integer(value)) return lk_arena_strdup(&data->arena, "");
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    return lk_arena_strdup(&data->arena, number);
}

/* The folder that holds the picture, below the root. */
static const char *folder_label(lk_train_data *data, const char *root, const char *path)
{
    size_t n = strlen(root);
    const char *begin = path + n, *end = strrchr(path, '/');
    while (*begin == '/') begin++;
    if (strncmp(path, root, n) != 0 || end <= begin) return lk_arena_strdup(&data->arena, "");
    char *label = lk_arena_alloc(&data->arena, (size_t)(end - begin) + 1);
    if (!label) return NULL;
    memcpy(label, begin, (size_t)(end - begin));
    label[end - begin] = 0;
    return label;
}

/* The label of one picture, as it is written. */
static lk_status take_label(table *t, size_t at, const lk_source *source, const char *root, const json_t *labels)
{
    lk_train_data *data = t->data;
    const json_t *several = json_object_get(labels, "labels");
    const char *folder = root ? folder_label(data, root, source->path) : "";
    if (!folder) return lk_fail_memory("pictures");
    if (t->source.folders || t->source.count) {
        size_t levels;
        lk_status s = lk_levels_read(&t->source, labels, folder, &data->arena, &t->keys[at], &data->names[at], &levels);
        if (levels > data->levels) data->levels = levels;
        return s;
    }
    data->multi |= several != NULL;
    data->names[at] = root ? folder : label_text(data, several ? several : json_object_get(labels, "label"));
    return data->names[at] ? LK_OK : lk_fail_memory("pictures");
}

static lk_status take_one(table *t, const lk_source *source, const char *root)
{
    lk_train_data *data = t->data;
    json_t *labels = source->labels ? json_loads(source->labels, 0, NULL) : NULL;
    size_t at = data->count;
    data->paths[at] = lk_arena_strdup(&data->arena, source->path);
    t->parts[at] = (uint8_t)part_of(labels);
    t->split |= t->parts[at] != PART_UNKNOWN;
    lk_status s = data->paths[at] ? take_label(t, at, source, root, labels) : lk_fail_memory("pictures");
    json_decref(labels);
    if (s != LK_OK) return s;
    data->labelled |= data->names[at][0] != 0;
    data->count++;
    return LK_OK;
}

/* Takes over what exists of the list. root: the folder, NULL for a CSV. */
static lk_status take_sources(lk_context *context, table *t, lk_source_list *list, const char *root)
{
    lk_train_data *data = t->data;
    size_t all = lk_sources_count(list), drawings = 0;
    data->paths = lk_alloc_zero(all + 1, sizeof *data->paths);
    data->names = lk_alloc_zero(all + 1, sizeof *data->names);
    t->keys = lk_alloc_zero(all + 1, sizeof *t->keys);
    t->parts = lk_alloc_zero(all + 1, 1);
    if (!data->paths || !data->names || !t->keys || !t->parts) return lk_fail_memory("pictures");
    for (size_t i = 0; i < all; i++) {
        const lk_source *source = lk_sources_at(list, i);
        if (access(source->path, R_OK) != 0) {
            if (++data->info.missing <= MISSING_NAMED)
                lk_log(context, LK_LOG_WARN, "%s: cannot be read and is left out", source->path);
            continue;
        }
        lk_status s = take_one(t, source, root);
        if (s != LK_OK) return lk_fail_in(s, "%s", source->path);
        const char *dot = strrchr(source->path, '.');
        drawings += dot && strcasecmp(dot, ".svg") == 0;
    }
    data->drawings = 2 * drawings > data->count;
    if (data->levels < 2) data->levels = 0;
    if (data->info.missing > MISSING_NAMED)
        lk_log(context, LK_LOG_WARN, "%zu pictures cannot be read and are left out", data->info.missing);
    if (data->count == 0)
        return lk_fail(LK_NOT_FOUND, all ? "none of the %zu pictures of the list exists" : "there are no pictures",
                       all);
    return LK_OK;
}

/* Calls fn for each label of a picture. */
static lk_status each_label(const lk_train_data *data, const char *text, lk_status (*fn)(void *user, const char *label),
                            void *user)
{
    if (!data->multi) return *text ? fn(user, text) : LK_OK;
    char label[256];
    lk_status s = LK_OK;
    while (*text && s == LK_OK) {
        size_t n = strcspn(text, ";|"), keep;
        const char *begin = text + strspn(text, " ");
        keep = n - (size_t)(begin - text < (ptrdiff_t)n ? begin - text : (ptrdiff_t)n);
        while (keep && begin[keep - 1] == ' ') keep--;
        if (keep >= sizeof label)
            return lk_fail(LK_LIMIT, "the label %.*s... is longer than 255 bytes", lk_utf8_fit(begin, 40), begin);
        memcpy(label, begin, keep);
        label[keep] = 0;
        if (keep) s = fn(user, label);
        text += n + (text[n] != 0);
    }
    return s;
}

typedef struct name_list {
    lk_train_data *data;
    const char **names;
    size_t count, capacity;
} name_list;

static lk_status add_name(void *user, const char *label)
{
    name_list *list = user;
    const char *copy = lk_arena_strdup(&list->data->arena, label);
    if (!copy || !lk_grow((void **)&list->names, &list->capacity, list->count + 1, sizeof *list->names))
        return lk_fail_memory("labels");
    list->names[list->count++] = copy;
    return LK_OK;
}

static lk_status add_set(void *user, const char *label)
{
    table *t = user;
    if (!lk_grow((void **)&t->sets, &t->set_capacity, t->set_count + 1, sizeof *t->sets))
        return lk_fail_memory("labels");
    t->sets[t->set_count++] = find_class(t, label);
    return LK_OK;
}

static int compare_int(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Numbers for names, in their order. */
static lk_status number_classes(table *t)
{
    lk_train_data *data = t->data;
    name_list list = {.data = data};
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < data->count; i++) s = each_label(data, data->names[i], add_name, &list);
    t->classes = list.names;
    if (s != LK_OK) return s;
    if (list.count) qsort(list.names, list.count, sizeof *list.names, compare_names);
    for (size_t i = 0; i < list.count; i++)
        if (i == 0 || strcmp(list.names[i], t->classes[t->class_count - 1]) != 0)
            t->classes[t->class_count++] = list.names[i];
    t->label_of = lk_alloc(data->count, sizeof *t->label_of);
    t->set_at = lk_alloc_zero(data->count + 1, sizeof *t->set_at);
    if (!t->label_of || !t->set_at) return lk_fail_memory("labels");
    for (size_t i = 0; i < data->count; i++) {
        s = each_label(data, data->names[i], add_set, t);
        if (s != LK_OK) return s;
        size_t begin = t->set_at[i], n = t->set_count - begin, kept = 0;
        if (n) qsort(t->sets + begin, n, sizeof *t->sets, compare_int);
        for (size_t k = 0; k < n; k++)
            if (k == 0 || t->sets[begin + k] != t->sets[begin + kept - 1]) t->sets[begin + kept++] = t->sets[begin + k];
        t->set_count = begin + kept;
        t->set_at[i + 1] = t->set_count;
        t->label_of[i] = kept ? t->sets[begin] : -1;
    }
    return s;
}

/* ---- holding out ---- */

typedef struct ranked {
    uint64_t hash;
    size_t what;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->what > y->what) - (x->what < y->what);
}

static uint64_t name_hash(const char *name)
{
    return lk_hash(name, strlen(name)).low;
}

/* A fifth of the classes of at least two pictures, at least two, those of the smallest hashes. */
static void hold_out_classes(table *t, const size_t *sizes, ranked *order, size_t usable)
{
    size_t n = 0;
    for (size_t c = 0; c < t->class_count; c++)
        if (sizes[c] > 1) order[n++] = (ranked){name_hash(t->classes[c]), c};
    qsort(order, n, sizeof *order, compare_ranked);
    /* One class alone would be found without a mistake by any network. */
    size_t held = usable / HOLD_OUT < 2 ? 2 : usable / HOLD_OUT;
    for (size_t k = 0; k < held; k++)
        for (size_t i = 0; i < t->data->count; i++)
            if (t->label_of[i] == (int32_t)order[k].what) t->parts[i] = PART_VALIDATION;
    t->data->info.held_out = held;
}

/* How many pictures of a class validate: a fifth, and two at least (one is to find the other) where the class has
 * `least`. */
static size_t held_of(size_t size, size_t least)
{
    return size / HOLD_OUT < 2 && size >= least ? 2 : size / HOLD_OUT;
}

/* A fifth of the pictures of each class (of all, without labels), those of the smallest hashes of their paths. None
 * where they would be of one class. */
static void hold_out_pictures(table *t, const size_t *sizes, ranked *order)
{
    lk_train_data *data = t->data;
    size_t least = 8, pairs = 0;
    while (least > 4 && pairs < 2) {
        least -= 2;
        pairs = 0;
        for (size_t c = 0; c < t->class_count; c++) pairs += held_of(sizes[c], least) > 1;
    }
    if (data->labelled && !data->multi && pairs < 2) return;
    for (int64_t c = t->class_count ? 0 : -1; c < (int64_t)t->class_count; c++) {
        size_t n = 0, size = c < 0 ? data->count : sizes[c];
        for (size_t i = 0; i < data->count; i++)
            if (t->label_of[i] == (int32_t)c) order[n++] = (ranked){name_hash(data->paths[i]), i};
        qsort(order, n, sizeof *order, compare_ranked);
        for (size_t k = 0; k < held_of(size, least); k++) t->parts[order[k].what] = PART_VALIDATION;
    }
}

static lk_status hold_out(table *t)
{
    lk_train_data *data = t->data;
    size_t *sizes = lk_alloc_zero(t->class_count + 1, sizeof *sizes), usable = 0;
    ranked *order = lk_alloc(data->count + t->class_count, sizeof *order);
    lk_status s = sizes && order ? LK_OK : lk_fail_memory("labels");
    for (size_t i = 0; s == LK_OK && i < data->count; i++) {
        t->parts[i] = PART_TRAINING;
        if (t->label_of[i] >= 0) sizes[t->label_of[i]]++;
    }
    for (size_t c = 0; s == LK_OK && c < t->class_count; c++) usable += sizes[c] > 1;
    if (s == LK_OK && usable >= LEAST_CLASSES && !data->multi)
        hold_out_classes(t, sizes, order, usable);
    else if (s == LK_OK && data->count >= 2 * HOLD_OUT)
        hold_out_pictures(t, sizes, order);
    free(sizes);
    free(order);
    return s;
}

/* ---- parts ---- */

static lk_status make_part(table *t, int which, lk_train_part *part)
{
    lk_train_data *data = t->data;
    int32_t *number = lk_alloc(t->class_count + 1, sizeof *number);
    part->pictures = lk_alloc(data->count, sizeof *part->pictures);
    part->classes = lk_alloc(data->count, sizeof *part->classes);
    part->set_at = data->multi ? lk_alloc_zero(data->count + 1, sizeof *part->set_at) : NULL;
    part->sets = data->multi ? lk_alloc(t->set_count + 1, sizeof *part->sets) : NULL;
    part->levels = data->levels ? lk_alloc(data->count, data->levels * sizeof *part->levels) : NULL;
    if (!number || !part->pictures || !part->classes || (data->multi && (!part->set_at || !part->sets)) ||
        (data->levels && !part->levels)) {
        free(number);
        return lk_fail_memory("labels");
    }
    for (size_t c = 0; c < t->class_count; c++) number[c] = -1;
    for (size_t i = 0; i < data->count; i++) {
        if (t->parts[i] != which) continue;
        if (data->labelled && t->label_of[i] < 0) continue;
        size_t at = part->count++;
        part->pictures[at] = (uint32_t)i;
        if (!data->labelled) {
            part->classes[at] = (int32_t)at;
            continue;
        }
        if (number[t->label_of[i]] < 0) number[t->label_of[i]] = (int32_t)part->class_count++;
        part->classes[at] = number[t->label_of[i]];
        if (data->levels)
            memcpy(part->levels + at * data->levels, t->levels + i * data->levels, data->levels * sizeof *part->levels);
        if (!data->multi) continue;
        size_t n = t->set_at[i + 1] - t->set_at[i];
        memcpy(part->sets + part->set_at[at], t->sets + t->set_at[i], n * sizeof *part->sets);
        part->set_at[at + 1] = part->set_at[at] + (uint32_t)n;
    }
    free(number);
    return LK_OK;
}

/* Whether validation tells a good network from a bad one: a picture with another of its class, and one of another. Of
 * one class every order is right, and the first epoch would stay the best. */
static bool tells_apart(const lk_train_data *data)
{
    const lk_train_part *part = &data->validation;
    size_t *sizes = lk_alloc_zero(part->class_count + 1, sizeof *sizes);
    bool found = false;
    for (size_t i = 0; sizes && i < part->count; i++) found |= ++sizes[part->classes[i]] > 1;
    free(sizes);
    return found && part->class_count > 1;
}

static void check_validation(lk_context *context, table *t)
{
    lk_train_data *data = t->data;
    lk_train_part *part = &data->validation;
    if (data->labelled && !data->multi && part->count && !tells_apart(data)) {
        lk_log(context, LK_LOG_WARN,
               "the %zu pictures to validate with are left out: %s. Two classes with two pictures each are needed",
               part->count, part->class_count > 1 ? "no two are of one class" : "they are of one class alone");
        part->count = part->class_count = 0;
    }
    if (!part->count)
        lk_log(context, LK_LOG_INFO,
               "no pictures to validate with%s: the model of the last epoch is kept, and nothing says how good it is",
               t->split ? "" : " (too few of two classes to hold any out)");
}

static lk_status summarise(lk_train_data *data)
{
    const lk_labels labels = {.kind = data->multi    ? LK_LABELS_MULTI
                                      : data->levels ? LK_LABELS_HIERARCHY
                                                     : LK_LABELS_SINGLE,
                              .classes = data->levels ? data->training.levels : data->training.classes,
                              .levels = data->levels,
                              .set_at = data->training.set_at,
                              .sets = data->training.sets};
    lk_train_data_info *info = &data->info;
    info->training = data->training.count;
    info->validation = data->validation.count;
    info->classes = data->training.class_count;
    info->left_out = data->count - info->training - info->validation;
    return lk_labels_summary(data->labelled ? &labels : NULL, info->training, &info->labels);
}

static lk_status finish(lk_context *context, table *t, const char *path)
{
    lk_train_data *data = t->data;
    lk_status s;
    LK_TRY(number_classes(t));
    if (data->levels) {
        t->levels = lk_alloc(data->count, data->levels * sizeof *t->levels);
        if (!t->levels) LK_TRY(lk_fail_memory("labels"));
        LK_TRY(lk_levels_number(t->keys, data->count, data->levels, t->levels));
    }
    if (!t->split) LK_TRY(hold_out(t));
    LK_TRY(make_part(t, PART_TRAINING, &data->training));
    LK_TRY(make_part(t, PART_VALIDATION, &data->validation));
    check_validation(context, t);
    lk_train_data_info *info = &data->info;
    LK_TRY(summarise(data));
    if (t->split) info->held_out = data->validation.class_count;
    if (info->training < 2)
        LK_TRY(lk_fail(LK_INVALID, "%s: %zu pictures to train on%s: at least two are needed", path, info->training,
                       t->split ? " (rows whose split is train)" : ""));
done:
    return s;
}

lk_status lk_train_data_thin(lk_train_data *data, size_t least)
{
    lk_train_part *part = &data->training;
    size_t *sizes = lk_alloc_zero(part->class_count + 1, sizeof *sizes), kept = 0, classes = 0;
    if (!sizes) return lk_fail_memory("labels");
    lk_status s = LK_OK;
    if (!data->labelled || data->multi)
        LK_TRY(lk_fail(LK_INVALID, "classes can be left out by their size only where each picture has one label"));
    for (size_t i = 0; i < part->count; i++) sizes[part->classes[i]]++;
    for (size_t c = 0; c < part->class_count; c++) classes += sizes[c] >= least;
    if (classes < 2)
        LK_TRY(
            lk_fail(LK_INVALID, "%zu classes have %zu pictures to train on: at least two are needed", classes, least));
    classes = 0;
    for (size_t c = 0; c < part->class_count; c++) sizes[c] = sizes[c] >= least ? classes++ : SIZE_MAX;
    for (size_t i = 0; i < part->count; i++) {
        size_t number = sizes[part->classes[i]], levels = data->levels;
        if (number == SIZE_MAX) continue;
        part->pictures[kept] = part->pictures[i];
        if (levels) memmove(part->levels + kept * levels, part->levels + i * levels, levels * sizeof *part->levels);
        part->classes[kept++] = (int32_t)number;
    }
    part->count = kept;
    part->class_count = classes;
    s = summarise(data);
done:
    free(sizes);
    return s;
}

lk_status lk_train_data_open(lk_context *context, const char *path, const char *levels, lk_train_data **out)
{
    struct stat st;
    lk_source_list *list = NULL;
    char *root = NULL;
    *out = NULL;
    table t = {.data = lk_alloc_zero(1, sizeof *t.data)};
    lk_status s = t.data ? LK_OK : lk_fail_memory("training data");
    if (s != LK_OK) goto done;
    LK_TRY(lk_path_absolute(path, &root));
    if (stat(root, &st) != 0) {
        s = lk_fail(LK_NOT_FOUND, "%s: there is no such folder or CSV", path);
        goto done;
    }
    LK_TRY(lk_sources_new(&list));
    bool folder = S_ISDIR(st.st_mode);
    LK_TRY(folder ? lk_sources_add(list, root) : lk_sources_add_csv(list, root));
    LK_TRY(lk_fail_in(lk_levels_find(levels, folder, list, &t.source), "%s", path));
    LK_TRY(lk_fail_in(take_sources(context, &t, list, folder ? root : NULL), "%s", path));
    LK_TRY(finish(context, &t, path));
    *out = t.data;
    t.data = NULL;
done:
    lk_sources_free(list);
    free(root);
    free(t.parts);
    free(t.label_of);
    free(t.set_at);
    free(t.sets);
    free(t.classes);
    free(t.keys);
    free(t.levels);
    lk_train_data_free(t.data);
    return s;
}

static void free_part(lk_train_part *part)
{
    free(part->pictures);
    free(part->classes);
    free(part->set_at);
    free(part->sets);
    free(part->levels);
}

void lk_train_data_free(lk_train_data *data)
{
    if (!data) return;
    free_part(&data->training);
    free_part(&data->validation);
    free(data->paths);
    free(data->names);
    lk_arena_free(&data->arena);
    free(data);
}

lk_train_data_info lk_train_data_info_of(const lk_train_data *data)
{
    return data->info;
}

lk_labels lk_train_labels_of(const lk_train_data *data, const lk_train_part *part, const uint32_t *rows, size_t n,
                             bool finest, int32_t *classes, uint32_t *set_at, int32_t *sets)
{
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    size_t levels = finest ? 0 : data->levels;
    if (levels) {
        labels.kind = LK_LABELS_HIERARCHY;
        labels.levels = levels;
        for (size_t i = 0; i < n; i++)
            memcpy(classes + i * levels, part->levels + rows[i] * levels, levels * sizeof *classes);
        return labels;
    }
    for (size_t i = 0; i < n; i++) classes[i] = part->classes[rows[i]];
    if (!data->multi) return labels;
    set_at[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t begin = part->set_at[rows[i]], count = part->set_at[rows[i] + 1] - begin;
        memcpy(sets + set_at[i], part->sets + begin, count * sizeof *sets);
        set_at[i + 1] = set_at[i] + (uint32_t)count;
    }
    return (lk_labels){.kind = LK_LABELS_MULTI, .set_at = set_at, .sets = sets};
}
