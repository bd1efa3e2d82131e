/* Against transformers' CLIPTokenizer: tests/fixtures/tokenizer, or the folder LIKENESS_TOKENIZER_CASES for the full
 * vocabulary (tools/reference/tokenizer.py makes both). Ids must be equal. */
#include "tokenizer_fixture.h"

static const char *folder(void)
{
    const char *other = getenv("LIKENESS_TOKENIZER_CASES");
    return other ? other : UNIT_FIXTURES "/tokenizer";
}

static void ids_equal_those_of_transformers(void **state)
{
    (void)state;
    lk_tokenizer *tokenizer;
    assert_int_equal(lk_tokenizer_open(folder(), &tokenizer), LK_OK);
    compare_cases(tokenizer, folder(), 77, "ids");
    lk_tokenizer_free(tokenizer);
}

static void the_pair_of_older_files_gives_the_same(void **state)
{
    char command[1400];
    lk_tokenizer *tokenizer;
    snprintf(command, sizeof command, "cp '%s/vocab.json' '%s/merges.txt' '%s/'", folder(), folder(), (char *)*state);
    assert_int_equal(system(command), 0);
    assert_int_equal(lk_tokenizer_open(*state, &tokenizer), LK_OK);
    compare_cases(tokenizer, folder(), 77, "ids");
    lk_tokenizer_free(tokenizer);
}

static void long_texts_keep_their_end_token(void **state)
{
    (void)state;
    lk_tokenizer *t;
    int32_t ids[77];
    size_t count;
    assert_int_equal(lk_tokenizer_open(folder(), &t), LK_OK);
    char *text = malloc(70000);
    memset(text, 'a', 60000);
    text[60000] = 0;
    for (int i = 0; i < 60000; i += 2) text[i] = ' ';
    assert_int_equal(lk_tokenizer_encode(t, text, 77, ids, &count), LK_OK);
    assert_int_equal(count, 77);
    assert_int_equal(ids[76], lk_tokenizer_end(t));
    assert_int_not_equal(ids[75], lk_tokenizer_end(t));
    memset(text, 'a', 60000);
    assert_int_equal(lk_tokenizer_encode(t, text, 77, ids, &count), LK_OK);
    memset(text, 'a', 69999);
    text[69999] = 0;
    assert_int_equal(lk_tokenizer_encode(t, text, 77, ids, &count), LK_LIMIT);
    assert_int_equal(lk_tokenizer_encode(t, "\xff\xfe", 77, ids, &count), LK_INVALID);
    /* what triples when it is composed, and what is lower-cased to more bytes */
    text[0] = 0;
    for (int i = 0; i < 16000; i++) strcpy(text + 4 * i, "\xf0\x9d\x85\xa0");
    assert_int_equal(lk_tokenizer_encode(t, text, 77, ids, &count), LK_OK);
    for (int i = 0; i < 32000; i++) strcpy(text + 2 * i, i % 2 ? "İ" : "\xc8\xba");
    assert_int_equal(lk_tokenizer_encode(t, text, 77, ids, &count), LK_OK);
    free(text);
    lk_tokenizer_free(t);
}

static void refuses(const char *json, lk_status status, const char *why)
{
    lk_tokenizer *t;
    lk_status s = lk_tokenizer_parse(json, strlen(json), "tokenizer.json", &t);
    if (s != status || t || !strstr(lk_error_message(), why))
        fail_msg("%s: status %d, \"%s\"", json, s, lk_error_message());
}

#define CLEAN                                                                                                          \
    "\"normalizer\":{\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"}]},\"pre_tokenizer\":{"               \
    "\"pretokenizers\":[{"                                                                                             \
    "\"type\":\"Split\"},{\"type\":\"ByteLevel\"}]},"
#define MODEL(vocab, merges)                                                                                           \
    "{" CLEAN "\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":" vocab ",\"merges\":" merges "}" \
    "}"
#define ENDS "\"<|startoftext|>\":0,\"<|endoftext|>\":1"

static void bad_files_and_other_kinds_are_refused(void **state)
{
    (void)state;
    refuses("", LK_CORRUPT, "tokenizer.json");
    refuses("[]", LK_CORRUPT, "not a JSON object");
    refuses("{}", LK_CORRUPT, "no model");
    refuses("{\"model\":{\"type\":\"WordPiece\"}}", LK_UNSUPPORTED, "WordPiece");
    refuses("{\"model\":{\"type\":\"BPE\"}}", LK_UNSUPPORTED, "another kind");
    refuses("{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"}}", LK_UNSUPPORTED, "otherwise");
    refuses(MODEL("[]", "[]"), LK_CORRUPT, "no vocabulary");
    refuses(MODEL("{\"a\":1}", "[]"), LK_CORRUPT, "<|startoftext|>");
    refuses(MODEL("{" ENDS ",\"a\":-1}", "[]"), LK_CORRUPT, "the id of the token a");
    refuses(MODEL("{" ENDS ",\"a\":2,\"b\":3}", "[\"a b\"]"), LK_CORRUPT,
            "merge 1: tokenizer.json: the token ab is missing");
    refuses(MODEL("{" ENDS ",\"a\":2}", "[\"ab\"]"), LK_CORRUPT, "merge 1 is not two tokens");
    refuses(MODEL("{" ENDS ",\"a\":2}", "[[\"a\"]]"), LK_CORRUPT, "merge 1 is not two tokens");
    lk_tokenizer *t;
    assert_int_equal(lk_tokenizer_open("/nonexistent", &t), LK_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_transformers),
        cmocka_unit_test_setup_teardown(the_pair_of_older_files_gives_the_same, unit_folder, unit_folder_remove),
        cmocka_unit_test(long_texts_keep_their_end_token),
        cmocka_unit_test(bad_files_and_other_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
