/* Against transformers' SiglipTokenizer and the tokenizers library: tests/fixtures/siglip, or the folder
 * LIKENESS_SIGLIP_CASES for more (tools/reference/tokenizer_siglip.py makes both). Ids must be equal. */
#include "tokenizer_fixture.h"

#include "base/file.h"
#include "models/sentencepiece.h"

#include <math.h>

enum { LENGTH = 64 };

static const char *folder(void)
{
    const char *other = getenv("LIKENESS_SIGLIP_CASES");
    return other ? other : UNIT_FIXTURES "/siglip";
}

static void ids_equal_those_of_transformers(void **state)
{
    (void)state;
    lk_tokenizer *tokenizer;
    assert_int_equal(lk_tokenizer_open(folder(), &tokenizer), LK_OK);
    assert_int_equal(lk_tokenizer_pad(tokenizer), 1); /* short rows are filled with the end token */
    assert_int_equal(lk_tokenizer_end(tokenizer), 1);
    compare_cases(tokenizer, folder(), LENGTH, "ids");
    lk_tokenizer_free(tokenizer);
}

static void a_unigram_tokenizer_json_gives_the_ids_of_tokenizers(void **state)
{
    char command[1400];
    lk_tokenizer *tokenizer;
    snprintf(command, sizeof command, "cp '%s/tokenizer.json' '%s/'", folder(), (char *)*state);
    assert_int_equal(system(command), 0);
    assert_int_equal(lk_tokenizer_open(*state, &tokenizer), LK_OK);
    compare_cases(tokenizer, folder(), LENGTH, "fast");
    lk_tokenizer_free(tokenizer);
}

static void bytes_and_fixed_pieces_are_those_of_sentencepiece(void **state)
{
    (void)state;
    char path[512];
    size_t i, size, count;
    uint8_t *bytes;
    json_t *item;
    lk_sentencepiece *model;
    snprintf(path, sizeof path, "%s/bytes.model", folder());
    assert_int_equal(lk_file_read(path, 1 << 20, &bytes, &size), LK_OK);
    assert_int_equal(lk_sentencepiece_parse(bytes, size, path, &model), LK_OK);
    snprintf(path, sizeof path, "%s/bytes.json", folder());
    json_t *cases = json_load_file(path, 0, NULL);
    assert_true(json_array_size(cases) > 40);
    json_array_foreach(cases, i, item)
    {
        int32_t *ids;
        const char *text = json_string_value(json_object_get(item, "text"));
        const json_t *wanted = json_object_get(item, "ids");
        assert_int_equal(lk_sentencepiece_encode(model, text, strlen(text), &ids, &count), LK_OK);
        if (count != json_array_size(wanted)) fail_msg("%s: %zu ids", text, count);
        for (size_t j = 0; j < count; j++)
            if (ids[j] != json_integer_value(json_array_get(wanted, j))) fail_msg("%s: id %zu is %d", text, j, ids[j]);
        free(ids);
    }
    json_decref(cases);
    lk_sentencepiece_free(model);
    free(bytes);
}

static void long_texts_keep_their_end_token(void **state)
{
    (void)state;
    lk_tokenizer *t;
    int32_t ids[LENGTH];
    size_t count;
    assert_int_equal(lk_tokenizer_open(folder(), &t), LK_OK);
    char *text = test_malloc(70000);
    memset(text, 'a', 60000);
    text[60000] = 0;
    for (int i = 0; i < 60000; i += 2) text[i] = ' ';
    assert_int_equal(lk_tokenizer_encode(t, text, LENGTH, ids, &count), LK_OK);
    assert_int_equal(count, LENGTH);
    assert_int_equal(ids[LENGTH - 1], lk_tokenizer_end(t));
    assert_int_not_equal(ids[LENGTH - 2], lk_tokenizer_end(t));
    memset(text, 'a', 69999);
    text[69999] = 0;
    assert_int_equal(lk_tokenizer_encode(t, text, LENGTH, ids, &count), LK_LIMIT);
    assert_int_equal(lk_tokenizer_encode(t, "\xff\xfe", LENGTH, ids, &count), LK_INVALID);
    /* a character that its table makes 18 of */
    text[0] = 0;
    for (int i = 0; i < 20000; i++) strcpy(text + 3 * i, "\xef\xb7\xba");
    assert_int_equal(lk_tokenizer_encode(t, text, LENGTH, ids, &count), LK_OK);
    test_free(text);
    lk_tokenizer_free(t);
}

/* A message of sentencepiece's file: field and wire type, then what follows. */
typedef struct file {
    uint8_t bytes[512];
    size_t size;
} file;

static void add_bytes(file *f, int field, const void *bytes, size_t size)
{
    f->bytes[f->size++] = (uint8_t)(field << 3 | 2);
    f->bytes[f->size++] = (uint8_t)size; /* below 128 */
    memcpy(f->bytes + f->size, bytes, size);
    f->size += size;
}

static void add_piece(file *f, const char *text, float score, uint8_t kind)
{
    file piece = {0};
    add_bytes(&piece, 1, text, strlen(text));
    piece.bytes[piece.size++] = 2 << 3 | 5;
    memcpy(piece.bytes + piece.size, &score, 4);
    piece.size += 4;
    piece.bytes[piece.size++] = 3 << 3;
    piece.bytes[piece.size++] = kind;
    add_bytes(f, 1, piece.bytes, piece.size);
}

static file small_model(void)
{
    file f = {0};
    add_piece(&f, "<pad>", 0, 3);
    add_piece(&f, "</s>", 0, 3);
    add_piece(&f, "<unk>", 0, 2);
    add_piece(&f, "\xe2\x96\x81", -1, 1);
    add_piece(&f, "a", -2, 1);
    return f;
}

static void refuses(const file *f, lk_status status, const char *why)
{
    lk_tokenizer *t;
    lk_status s = lk_tokenizer_parse_siglip(f->bytes, f->size, "spiece.model", NULL, &t);
    if (s != status || t || !strstr(lk_error_message(), why) || !strstr(lk_error_message(), "spiece.model"))
        fail_msg("status %d, \"%s\" where %s was due", s, lk_error_message(), why);
}

static void broken_models_are_refused(void **state)
{
    (void)state;
    lk_tokenizer *t;
    file f = small_model(), g;
    int32_t ids[8];
    size_t count;
    assert_int_equal(lk_tokenizer_parse_siglip(f.bytes, f.size, "spiece.model", NULL, &t), LK_OK);
    assert_int_equal(lk_tokenizer_encode(t, "A, a?", 8, ids, &count), LK_OK);
    assert_int_equal(count, 5);
    assert_memory_equal(ids, ((int32_t[]){3, 4, 3, 4, 1}), 5 * sizeof *ids);
    lk_tokenizer_free(t);
    for (size_t cut = 0; cut < f.size; cut++) { /* whatever is left of it is refused or read, never misread */
        lk_status s = lk_tokenizer_parse_siglip(f.bytes, cut, "cut", NULL, &t);
        assert_true(s == LK_OK || strstr(lk_error_message(), "cut"));
        lk_tokenizer_free(t);
    }
    g = (file){0};
    refuses(&g, LK_CORRUPT, "is not a SentencePiece model");
    memcpy(g.bytes, "<html>", g.size = 6);
    refuses(&g, LK_CORRUPT, "is not a SentencePiece model");
    g = f;
    add_piece(&g, "a", -3, 1);
    refuses(&g, LK_CORRUPT, "piece 5 (a) is there twice");
    g = f;
    add_piece(&g, "b", NAN, 1);
    refuses(&g, LK_CORRUPT, "score of piece 5");
    g = f;
    add_piece(&g, "<u>", 0, 2);
    refuses(&g, LK_CORRUPT, "two pieces are the unknown one");
    g = f;
    add_bytes(&g, 2, "\x18\x02", 2); /* model_type 2 */
    refuses(&g, LK_UNSUPPORTED, "of the kind BPE");
    g = f;
    add_bytes(&g, 2, "\x98\x02\x01", 3); /* byte_fallback */
    refuses(&g, LK_CORRUPT, "<0x00>");
    g = f;
    add_bytes(&g, 3, "\x12\x05\xff\xff\xff\x7f!", 7); /* a table that is longer than the file */
    refuses(&g, LK_CORRUPT, "table of characters");
    g = (file){0};
    add_piece(&g, "a", 0, 1);
    refuses(&g, LK_CORRUPT, "unknown");
}

#define UNIGRAM(clean, split, vocab)                                                                                   \
    "{\"normalizer\":" clean ",\"pre_tokenizer\":" split                                                               \
    ",\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":" vocab "}}"
#define SPLIT "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}"
#define VOCAB "[[\"<unk>\",0],[\"a\",-1]]"

static void ways_of_cleaning_that_are_not_known_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        lk_status status;
        const char *why;
    } cases[] = {
        {UNIGRAM("null", SPLIT, VOCAB), LK_OK, ""},
        {UNIGRAM("{\"type\":\"Precompiled\"}", SPLIT, VOCAB), LK_UNSUPPORTED, "spiece.model"},
        {UNIGRAM("{\"type\":\"BertNormalizer\"}", SPLIT, VOCAB), LK_UNSUPPORTED, "BertNormalizer"},
        {UNIGRAM("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a|b)\"},\"content\":\"\"}", SPLIT, VOCAB),
         LK_UNSUPPORTED, "(a|b)"},
        {UNIGRAM("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^a]\"},\"content\":\"\"}", SPLIT, VOCAB),
         LK_UNSUPPORTED, "[^a]"},
        {UNIGRAM("null", "null", VOCAB), LK_UNSUPPORTED, "U+2581"},
        {UNIGRAM("null", SPLIT, "{}"), LK_CORRUPT, "no vocabulary"},
        {UNIGRAM("null", SPLIT, "[]"), LK_CORRUPT, "unknown"},
        {UNIGRAM("null", SPLIT, "[[\"a\"]]"), LK_CORRUPT, "piece 0"},
        {UNIGRAM("null", SPLIT, "[[\"a\",1],[\"a\",1]]"), LK_CORRUPT, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lk_tokenizer *t;
        lk_status s = lk_tokenizer_parse(cases[i].json, strlen(cases[i].json), "tokenizer.json", &t);
        if (s != cases[i].status || !strstr(lk_error_message(), cases[i].why))
            fail_msg("%s: status %d, \"%s\"", cases[i].json, s, lk_error_message());
        lk_tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_transformers),
        cmocka_unit_test_setup_teardown(a_unigram_tokenizer_json_gives_the_ids_of_tokenizers, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(bytes_and_fixed_pieces_are_those_of_sentencepiece),
        cmocka_unit_test(long_texts_keep_their_end_token),
        cmocka_unit_test(broken_models_are_refused),
        cmocka_unit_test(ways_of_cleaning_that_are_not_known_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
