#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "models/tokenizer_inside.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 22, MAX_FILE = 64 << 20 };

/* The printable character that stands for a byte in vocabularies (Radford et al., 2019): itself where Latin-1 has a
 * visible one, else the next free one from U+0100 on. */
static void byte_characters(uint32_t out[256])
{
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        out[b] = visible ? b : next++;
    }
}

static lk_status token_id(const json_t *vocabulary, const char *token, const char *name, int32_t *id)
{
    const json_t *value = json_object_get(vocabulary, token);
    if (!value) return lk_fail(LK_CORRUPT, "%s: the token %.*s is missing", name, lk_utf8_fit(token, 64), token);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= MAX_TOKENS)
        return lk_fail(LK_CORRUPT, "%s: the id of the token %.*s is not one", name, lk_utf8_fit(token, 64), token);
    *id = (int32_t)json_integer_value(value);
    return LK_OK;
}

static lk_status read_bytes(lk_tokenizer *t, const json_t *vocabulary, const char *name, int32_t unknown)
{
    uint32_t characters[256];
    byte_characters(characters);
    for (int b = 0; b < 256; b++) {
        for (int last = 0; last < 2; last++) {
            char token[16];
            int n = g_unichar_to_utf8(characters[b], token);
            strcpy(token + n, last ? "</w>" : "");
            t->bytes[b][last] = unknown;
            if (json_object_get(vocabulary, token)) {
                lk_status s = token_id(vocabulary, token, name, &t->bytes[b][last]);
                if (s != LK_OK) return s;
            }
        }
    }
    return LK_OK;
}

static lk_status add_merge(lk_tokenizer *t, const json_t *vocabulary, const char *name, uint32_t rank, const char *left,
                           size_t left_size, const char *right, size_t right_size)
{
    char joined[1024];
    int32_t ids[3];
    if (left_size + right_size >= sizeof joined) return lk_fail(LK_CORRUPT, "%s: merge %u is too long", name, rank + 1);
    for (int i = 0; i < 3; i++) {
        size_t n = 0;
        if (i != 1) memcpy(joined, left, n = left_size);
        if (i != 0) memcpy(joined + n, right, right_size);
        joined[i == 0 ? left_size : n + right_size] = 0;
        lk_status s = token_id(vocabulary, joined, name, &ids[i]);
        if (s != LK_OK) return lk_fail_in(s, "merge %u", rank + 1);
    }
    lk_bpe_add(&t->bpe, ids[0], ids[1], rank, ids[2]);
    return LK_OK;
}

static lk_status add_merge_line(lk_tokenizer *t, const json_t *vocabulary, const char *name, uint32_t rank,
                                const char *line)
{
    const char *space = strchr(line, ' ');
    if (!space || strchr(space + 1, ' ')) return lk_fail(LK_CORRUPT, "%s: merge %u is not two tokens", name, rank + 1);
    return add_merge(t, vocabulary, name, rank, line, (size_t)(space - line), space + 1, strlen(space + 1));
}

static lk_status add_special(lk_tokenizer *t, const char *name, const char *text, int32_t id, bool normalized)
{
    if (t->n_added == LK_MAX_ADDED) return lk_fail(LK_LIMIT, "%s: has more than %d added tokens", name, LK_MAX_ADDED);
    if (!*text) return lk_fail(LK_CORRUPT, "%s: an added token is empty", name);
    char *copy = strdup(text);
    if (!copy) return lk_fail_memory(name);
    t->added[t->n_added++] = (lk_added){.text = copy, .length = strlen(copy), .id = id, .normalized = normalized};
    return LK_OK;
}

static lk_status read_vocabulary(lk_tokenizer *t, const json_t *vocabulary, const char *name)
{
    const char *token;
    json_t *value;
    if (!json_is_object(vocabulary)) return lk_fail(LK_CORRUPT, "%s: has no vocabulary", name);
    json_object_foreach((json_t *)vocabulary, token, value)
    {
        int32_t id = 0;
        lk_status s = token_id(vocabulary, token, name, &id);
        if (s != LK_OK) return s;
        if ((size_t)id >= t->size) t->size = (size_t)id + 1;
    }
    lk_status s = token_id(vocabulary, "<|startoftext|>", name, &t->start);
    if (s == LK_OK) s = token_id(vocabulary, "<|endoftext|>", name, &t->end);
    t->pad = t->end;
    return s == LK_OK ? read_bytes(t, vocabulary, name, t->end) : s;
}

static lk_status read_merges(lk_tokenizer *t, const json_t *vocabulary, const json_t *merges, const char *name)
{
    size_t count = json_array_size(merges);
    lk_status s = lk_bpe_new(count, &t->bpe);
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *line = json_string_value(merge), *left = json_string_value(json_array_get(merge, 0)),
                   *right = json_string_value(json_array_get(merge, 1));
        if (line)
            s = add_merge_line(t, vocabulary, name, (uint32_t)i, line);
        else if (left && right)
            s = add_merge(t, vocabulary, name, (uint32_t)i, left, strlen(left), right, strlen(right));
        else
            s = lk_fail(LK_CORRUPT, "%s: merge %zu is not two tokens", name, i + 1);
    }
    return s;
}

static bool has_type(const json_t *part, const char *list, const char *type)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(part, list), i, item)
    {
        const char *is = json_string_value(json_object_get(item, "type"));
        if (is && strcmp(is, type) == 0) return true;
    }
    return false;
}

/* What is not CLIP's way of cleaning and splitting would give other tokens: better to refuse. */
static lk_status check_kind(const json_t *root, const char *name)
{
    const json_t *model = json_object_get(root, "model"), *normalizer = json_object_get(root, "normalizer"),
                 *pre = json_object_get(root, "pre_tokenizer");
    const char *type = json_string_value(json_object_get(model, "type")),
               *suffix = json_string_value(json_object_get(model, "end_of_word_suffix"));
    if (!type && json_object_get(model, "merges")) type = "BPE";
    if (!type) return lk_fail(LK_CORRUPT, "%s: has no model", name);
    if (strcmp(type, "BPE") != 0 || !suffix || strcmp(suffix, "</w>") != 0)
        return lk_fail(LK_UNSUPPORTED,
                       "%s: is a %.*s tokenizer of another kind than CLIP's; texts cannot be embedded with it", name,
                       lk_utf8_fit(type, 32), type);
    if (!has_type(normalizer, "normalizers", "NFC") || !has_type(normalizer, "normalizers", "Lowercase") ||
        !has_type(pre, "pretokenizers", "Split") || !has_type(pre, "pretokenizers", "ByteLevel"))
        return lk_fail(LK_UNSUPPORTED, "%s: cleans or splits texts otherwise than CLIP does", name);
    return LK_OK;
}

static lk_status read_added(lk_tokenizer *t, const json_t *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(json_object_get(item, "content"));
        const json_t *id = json_object_get(item, "id");
        if (!text || !json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= MAX_TOKENS)
            return lk_fail(LK_CORRUPT, "%s: added token %zu has no text or no id", name, i + 1);
        int32_t number = (int32_t)json_integer_value(id);
        if ((size_t)number >= t->size) t->size = (size_t)number + 1;
        lk_status s = add_special(t, name, text, number, json_is_true(json_object_get(item, "normalized")));
        if (s != LK_OK) return s;
        if (t->way != LK_TOKENS_OF_UNIGRAM) continue;
        lk_added *a = &t->added[t->n_added - 1];
        a->strip_left = json_is_true(json_object_get(item, "lstrip"));
        a->strip_right = json_is_true(json_object_get(item, "rstrip"));
        if (a->normalized)
            return lk_fail(LK_UNSUPPORTED, "%s: the added token %.*s is looked for in cleaned texts", name,
                           lk_utf8_fit(text, 64), text);
    }
    return LK_OK;
}

/* ---- Unigram ---- */

static lk_status read_unigram(lk_tokenizer *t, const json_t *model, const char *name)
{
    const json_t *vocabulary = json_object_get(model, "vocab"), *unknown = json_object_get(model, "unk_id");
    size_t i;
    json_t *item;
    lk_status s = lk_unigram_new(&t->unigram);
    if (s == LK_OK && !json_is_array(vocabulary)) s = lk_fail(LK_CORRUPT, "has no vocabulary");
    json_array_foreach(vocabulary, i, item)
    {
        const json_t *piece = json_array_get(item, 0), *score = json_array_get(item, 1);
        if (s != LK_OK) break;
        if (!json_is_string(piece) || !json_is_number(score))
            s = lk_fail(LK_CORRUPT, "piece %zu is not a text and its score", i);
        else
            s = lk_unigram_add(t->unigram, json_string_value(piece), json_string_length(piece),
                               json_number_value(score), LK_PIECE_NORMAL);
    }
    if (s == LK_OK)
        s = lk_unigram_finish(t->unigram, json_is_integer(unknown) ? json_integer_value(unknown) : -1,
                              json_is_true(json_object_get(model, "byte_fallback")), LK_UNIGRAM_TOKENIZERS);
    t->size = t->unigram ? lk_unigram_size(t->unigram) : 0;
    return s == LK_OK ? s : lk_fail_in(s, "%s", name);
}

/* The tokens that a TemplateProcessing puts before and behind a text; at most one each. */
static lk_status read_template(lk_tokenizer *t, const json_t *post, const char *name)
{
    size_t i;
    json_t *item;
    bool behind = false, known = true;
    t->start = t->end = -1;
    if (!post || json_is_null(post)) return LK_OK;
    json_array_foreach(json_object_get(post, "single"), i, item)
    {
        const char *id = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        const json_t *token = id ? json_object_get(json_object_get(post, "special_tokens"), id) : NULL,
                     *number = json_array_get(json_object_get(token, "ids"), 0);
        int32_t *place = behind ? &t->end : &t->start;
        if (json_object_get(item, "Sequence")) {
            known = known && !behind;
            behind = true;
        } else if (json_is_integer(number) && *place < 0 && json_integer_value(number) >= 0 &&
                   json_integer_value(number) < (json_int_t)t->size) {
            *place = (int32_t)json_integer_value(number);
        } else {
            known = false;
        }
    }
    return known && behind ? LK_OK : lk_fail(LK_UNSUPPORTED, "%s: ends texts in a way that is not known here", name);
}

static lk_status parse_unigram(lk_tokenizer *t, const json_t *root, const char *name)
{
    t->way = LK_TOKENS_OF_UNIGRAM;
    lk_status s = lk_cleaning_parse(root, name, &t->cleaning);
    if (s == LK_OK) s = read_unigram(t, json_object_get(root, "model"), name);
    if (s == LK_OK) s = read_added(t, json_object_get(root, "added_tokens"), name);
    if (s == LK_OK) s = read_template(t, json_object_get(root, "post_processor"), name);
    t->pad = t->end >= 0 ? t->end : 0;
    return s;
}

static bool is_unigram(const json_t *model)
{
    const char *type = json_string_value(json_object_get(model, "type"));
    return type && strcmp(type, "Unigram") == 0;
}

static lk_status parse_clip(lk_tokenizer *t, const json_t *root, const char *name)
{
    const json_t *model = json_object_get(root, "model"), *vocabulary = json_object_get(model, "vocab");
    lk_status s = check_kind(root, name);
    if (s == LK_OK) s = read_vocabulary(t, vocabulary, name);
    if (s == LK_OK) s = read_merges(t, vocabulary, json_object_get(model, "merges"), name);
    return s == LK_OK ? read_added(t, json_object_get(root, "added_tokens"), name) : s;
}

lk_status lk_tokenizer_parse(const char *text, size_t size, const char *name, lk_tokenizer **out)
{
    *out = NULL;
    json_error_t error;
    lk_tokenizer *t = lk_alloc_zero(1, sizeof *t);
    json_t *root = json_loadb(text, size, 0, &error);
    lk_status s = LK_OK;
    if (!t) s = lk_fail_memory(name);
    if (s == LK_OK && !json_is_object(root))
        s = lk_fail(LK_CORRUPT, "%s: is not a JSON object: %s", name, root ? "something else" : error.text);
    if (s != LK_OK) goto done;
    LK_TRY(is_unigram(json_object_get(root, "model")) ? parse_unigram(t, root, name) : parse_clip(t, root, name));
    *out = t;
    t = NULL;
done:
    json_decref(root);
    lk_tokenizer_free(t);
    return s;
}

/* vocab.json and merges.txt: the older pair of files. The first line of merges.txt names its version. */
static lk_status read_pair(const char *vocabulary_path, const char *merges_path, lk_tokenizer **out)
{
    uint8_t *text = NULL, *merges = NULL;
    size_t size;
    json_error_t error;
    json_t *vocabulary = NULL;
    lk_tokenizer *t = lk_alloc_zero(1, sizeof *t);
    lk_status s = t ? LK_OK : lk_fail_memory("tokenizer");
    if (s != LK_OK) return s;
    LK_TRY(lk_file_read(vocabulary_path, MAX_FILE, &text, &size));
    vocabulary = json_loadb((const char *)text, size, 0, &error);
    if (!vocabulary) {
        s = lk_fail(LK_CORRUPT, "%s: line %d: %s", vocabulary_path, error.line, error.text);
        goto done;
    }
    LK_TRY(read_vocabulary(t, vocabulary, vocabulary_path));
    LK_TRY(lk_file_read(merges_path, MAX_FILE, &merges, &size));
    size_t lines = 1;
    for (size_t i = 0; i < size; i++) lines += merges[i] == '\n';
    LK_TRY(lk_bpe_new(lines, &t->bpe));
    char *rest = (char *)merges, *line;
    uint32_t rank = 0;
    while ((line = strsep(&rest, "\n"))) {
        size_t n = strlen(line);
        if (n && line[n - 1] == '\r') line[--n] = 0;
        if (n == 0 || strncmp(line, "#version", 8) == 0) continue;
        LK_TRY(add_merge_line(t, vocabulary, merges_path, rank++, line));
    }
    LK_TRY(add_special(t, vocabulary_path, "<|startoftext|>", t->start, false));
    LK_TRY(add_special(t, vocabulary_path, "<|endoftext|>", t->end, false));
    *out = t;
    t = NULL;
done:
    json_decref(vocabulary);
    free(text);
    free(merges);
    lk_tokenizer_free(t);
    return s;
}

/* ---- spiece.model ---- */

/* The text of a token in tokenizer_config.json, which may be an object. */
static const char *token_text(const json_t *config, const char *key, const char *otherwise)
{
    const json_t *token = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    return text ? text : otherwise;
}

/* A token that texts may hold; transformers takes the white space around its own three. */
static lk_status add_token(lk_tokenizer *t, const char *name, const char *text, bool strip, int32_t *id)
{
    int32_t found = lk_unigram_find(lk_sentencepiece_pieces(t->model), text, strlen(text));
    if (found < 0) return lk_fail(LK_CORRUPT, "%s: the token %.*s is missing", name, lk_utf8_fit(text, 64), text);
    if (id) *id = found;
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].text, text) == 0) return LK_OK;
    lk_status s = add_special(t, name, text, found, false);
    if (s == LK_OK) t->added[t->n_added - 1].strip_left = t->added[t->n_added - 1].strip_right = strip;
    return s;
}

lk_status lk_tokenizer_parse_siglip(const void *bytes, size_t size, const char *name, const json_t *config,
                                    lk_tokenizer **out)
{
    int32_t *ids = NULL;
    *out = NULL;
    lk_tokenizer *t = lk_alloc_zero(1, sizeof *t);
    lk_status s = t ? LK_OK : lk_fail_memory(name);
    if (s != LK_OK) return s;
    t->way = LK_TOKENS_OF_SIGLIP;
    t->start = -1;
    t->lower = !json_is_false(json_object_get(config, "do_lower_case"));
    LK_TRY(lk_sentencepiece_parse(bytes, size, name, &t->model));
    t->size = lk_unigram_size(lk_sentencepiece_pieces(t->model));
    t->unknown = strdup(token_text(config, "unk_token", "<unk>"));
    if (!t->unknown) {
        s = lk_fail_memory(name);
        goto done;
    }
    LK_TRY(add_token(t, name, token_text(config, "eos_token", "</s>"), true, &t->end));
    LK_TRY(add_token(t, name, t->unknown, true, NULL));
    LK_TRY(add_token(t, name, token_text(config, "pad_token", "</s>"), true, &t->pad));
    LK_TRY(lk_sentencepiece_encode(t->model, t->unknown, strlen(t->unknown), &ids, &t->unknown_pieces));
    *out = t;
    t = NULL;
done:
    free(ids);
    lk_tokenizer_free(t);
    return s;
}

static lk_status open_siglip(const char *directory, const char *path, lk_tokenizer **out)
{
    lk_map map;
    char *config_path = lk_path_join(directory, "tokenizer_config.json");
    if (!config_path) return lk_fail_memory(directory);
    json_t *config = json_load_file(config_path, 0, NULL); /* it may be missing */
    lk_status s = lk_map_open(path, &map);
    if (s == LK_OK) {
        s = lk_tokenizer_parse_siglip(map.bytes, map.size, path, config, out);
        lk_map_close(&map);
    }
    json_decref(config);
    free(config_path);
    return s;
}

/* The token that fills short rows is named in files of its own; the end token unless they say otherwise. */
static lk_status read_pad(lk_tokenizer *t, const char *directory)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = lk_path_join(directory, files[i]);
        if (!path) return lk_fail_memory(directory);
        json_t *root = json_load_file(path, 0, NULL), *pad = json_object_get(root, "pad_token");
        const char *text = json_string_value(json_is_object(pad) ? json_object_get(pad, "content") : pad);
        bool found = false;
        for (size_t j = 0; text && j < t->n_added; j++)
            if ((found = strcmp(t->added[j].text, text) == 0)) {
                t->pad = t->added[j].id;
                break;
            }
        if (text && !found && text[0] == '!' && !text[1]) t->pad = t->bytes['!'][0];
        json_decref(root);
        free(path);
        if (text) return LK_OK;
    }
    return LK_OK;
}

static bool exists_in(const char *directory, const char *file, char **path)
{
    *path = lk_path_join(directory, file);
    return *path && lk_path_exists(*path);
}

bool lk_tokenizer_exists(const char *directory)
{
    char *json, *vocabulary, *pieces;
    bool yes = exists_in(directory, "tokenizer.json", &json);
    yes |= exists_in(directory, "vocab.json", &vocabulary);
    yes |= exists_in(directory, "spiece.model", &pieces);
    free(pieces);
    free(json);
    free(vocabulary);
    return yes;
}

lk_status lk_tokenizer_open(const char *directory, lk_tokenizer **out)
{
    char *json = NULL, *vocabulary = NULL, *merges = NULL, *pieces = NULL;
    uint8_t *text = NULL;
    size_t size;
    lk_status s = LK_OK;
    *out = NULL;
    if (exists_in(directory, "spiece.model", &pieces)) { /* what transformers reads for SigLIP */
        s = open_siglip(directory, pieces, out);
        goto done;
    }
    if (exists_in(directory, "tokenizer.json", &json)) {
        LK_TRY(lk_file_read(json, MAX_FILE, &text, &size));
        LK_TRY(lk_tokenizer_parse((const char *)text, size, json, out));
    } else if (exists_in(directory, "vocab.json", &vocabulary)) {
        if (!exists_in(directory, "merges.txt", &merges))
            s = lk_fail(LK_NOT_FOUND, "%s: has a vocab.json but no merges.txt", directory);
        else
            s = read_pair(vocabulary, merges, out);
    } else {
        s = lk_fail(LK_NOT_FOUND,
                    "%s: has no tokenizer.json, spiece.model, or vocab.json with merges.txt: texts cannot be embedded",
                    directory);
    }
    if (s == LK_OK) s = read_pad(*out, directory);
done:
    free(text);
    free(json);
    free(vocabulary);
    free(merges);
    free(pieces);
    return s;
}
