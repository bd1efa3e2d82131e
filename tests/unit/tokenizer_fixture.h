/* Texts with the ids that a reference gives them, for the tests of the tokenizers. */
#ifndef TOKENIZER_FIXTURE_H
#define TOKENIZER_FIXTURE_H

#include "models/tokenizer.h"

#include "unit.h"

#include <jansson.h>

/* Every text of <folder>/cases.json, in rows of `length` ids at most (128), must have the ids of the member `key`, or
 * of "ids" where there is none. */
static inline void compare_cases(const lk_tokenizer *tokenizer, const char *folder, size_t length, const char *key)
{
    char path[512];
    size_t i, wrong = 0;
    json_t *item;
    snprintf(path, sizeof path, "%s/cases.json", folder);
    json_t *cases = json_load_file(path, 0, NULL);
    assert_true(json_array_size(cases) > 200 && length <= 128);
    json_array_foreach(cases, i, item)
    {
        int32_t ids[128];
        size_t count;
        const char *text = json_string_value(json_object_get(item, "text"));
        const json_t *wanted = json_object_get(item, key);
        if (!wanted) wanted = json_object_get(item, "ids");
        assert_int_equal(lk_tokenizer_encode(tokenizer, text, length, ids, &count), LK_OK);
        bool same = count == json_array_size(wanted);
        for (size_t j = 0; same && j < count; j++) same = ids[j] == json_integer_value(json_array_get(wanted, j));
        if (!same) {
            char *form = json_dumps(item, JSON_ENSURE_ASCII);
            printf("%s\n  gave", form);
            for (size_t j = 0; j < count; j++) printf(" %d", ids[j]);
            printf("\n");
            free(form);
            wrong++;
        }
    }
    printf("%zu texts compared\n", json_array_size(cases));
    json_decref(cases);
    assert_int_equal(wrong, 0);
}

#endif
