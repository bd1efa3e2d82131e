#include "cli/train_keys.h"

#include "base/error.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lk_status cli_read_number(const char *option, const char *text, double least, double most, double *out)
{
    char *end;
    if (!text) return LK_OK;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= least && *out <= most))
        return lk_fail(LK_INVALID, "%s %s: a number from %g to %g is wanted", option, text, least, most);
    return LK_OK;
}

lk_status cli_read_word(const char *option, const char *text, const char *const *words, int count, int *out)
{
    char list[512] = "";
    if (!text) return LK_OK;
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return LK_OK;
        }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
    }
    return lk_fail(LK_INVALID, "%s %s: one of %s is wanted", option, text, list);
}

/* ---- keys ---- */

static const char *const distances[] = {"default", "cosine", "l2", "squared-l2", "inner-product"};
static const char *const reducers[] = {"default", "mean", "mean-nonzero", "sum"};
static const char *const forms[] = {"hinge", "smooth", "soft-margin"};
static const char *const strategies[] = {"hard", "semi-hard", "easy", "all"};
static const char *const switches[] = {"no", "yes"};

enum { KEY_NUMBER, KEY_COUNT, KEY_SIZE, KEY_SWITCH, KEY_WORD, KEY_MINER };
#define WORDS(list) .words = list, .word_count = sizeof list / sizeof *list

/* A field that can be typed. */
typedef struct key {
    const char *name;
    int kind;
    size_t at;
    double least, most;
    const char *const *words; /* KEY_WORD: of an enum, in its order */
    int word_count;
} key;

#define LOSS(field) offsetof(lk_loss_options, field)
static const key loss_keys[] = {
    {"margin", KEY_NUMBER, LOSS(margin), 0, 100},
    {"positive-margin", KEY_NUMBER, LOSS(positive_margin), -100, 100},
    {"negative-margin", KEY_NUMBER, LOSS(negative_margin), -100, 100},
    {"scale", KEY_NUMBER, LOSS(scale), 1e-3, 1e4},
    {"temperature", KEY_NUMBER, LOSS(temperature), 1e-3, 100},
    {"alpha", KEY_NUMBER, LOSS(alpha), 1e-3, 1e4},
    {"beta", KEY_NUMBER, LOSS(beta), 1e-3, 1e4},
    {"base", KEY_NUMBER, LOSS(base), -100, 100},
    {"nu", KEY_NUMBER, LOSS(nu), 0, 100},
    {"form", KEY_WORD, LOSS(form), WORDS(forms)},
    {"swap", KEY_SWITCH, LOSS(swap)},
    {"bins", KEY_COUNT, LOSS(bins), 1, 10000},
    {"subcenters", KEY_COUNT, LOSS(subcenters), 1, 100},
    {"learn-beta", KEY_SWITCH, LOSS(learn_beta)},
    {"beta-per-class", KEY_SWITCH, LOSS(beta_per_class)},
    {"memory", KEY_SIZE, LOSS(memory), 0, 10000000},
    {"memory-miner", KEY_MINER, LOSS(memory_miner)},
    {"reducer", KEY_WORD, LOSS(reducer), WORDS(reducers)},
    {"distance", KEY_WORD, LOSS(distance.kind), WORDS(distances)},
    {"raw", KEY_SWITCH, LOSS(distance.raw)},
};
#define MINER(field) offsetof(lk_miner_options, field)
static const key miner_keys[] = {
    {"margin", KEY_NUMBER, MINER(margin), 0, 100},
    {"positive", KEY_WORD, MINER(positive), WORDS(strategies)},
    {"negative", KEY_WORD, MINER(negative), WORDS(strategies)},
    {"epsilon", KEY_NUMBER, MINER(epsilon), 0, 100},
    {"positive-margin", KEY_NUMBER, MINER(positive_margin), -100, 100},
    {"negative-margin", KEY_NUMBER, MINER(negative_margin), -100, 100},
    {"angle", KEY_NUMBER, MINER(angle), 0, 1.6},
    {"cutoff", KEY_NUMBER, MINER(cutoff), 0, 2},
    {"nonzero-cutoff", KEY_NUMBER, MINER(nonzero_cutoff), 0, 2},
    {"distance", KEY_WORD, MINER(distance.kind), WORDS(distances)},
    {"raw", KEY_SWITCH, MINER(distance.raw)},
};

#define AUXILIARY(field) offsetof(lk_auxiliary_options, field)
static const key auxiliary_keys[] = {
    {"temperature", KEY_NUMBER, AUXILIARY(temperature), 1e-3, 100},
    {"smoothing", KEY_NUMBER, AUXILIARY(smoothing), 0, 0.99},
};

static lk_status set_field(const key *k, const char *what, const char *value, void *options)
{
    void *field = (char *)options + k->at;
    double number = 0;
    int word = 0;
    lk_status s = LK_OK;
    switch (k->kind) {
    case KEY_NUMBER: return cli_read_number(what, value, k->least, k->most, field);
    case KEY_COUNT:
    case KEY_SIZE:
        s = cli_read_number(what, value, k->least, k->most, &number);
        if (s == LK_OK && number != (double)(size_t)number)
            s = lk_fail(LK_INVALID, "%s %s: no whole number", what, value);
        if (k->kind == KEY_SIZE)
            *(size_t *)field = (size_t)number;
        else
            *(uint32_t *)field = (uint32_t)number;
        return s;
    case KEY_SWITCH:
        s = cli_read_word(what, value, switches, 2, &word);
        *(bool *)field = word;
        return s;
    case KEY_MINER: return lk_miner_kind_of(value, field);
    default: /* enums are ints here, as in every C of Linux */
        s = cli_read_word(what, value, k->words, k->word_count, &word);
        *(int *)field = word;
        return s;
    }
}

/* What follows the colon. */
static lk_status read_keys(const char *what, const char *text, const key *keys, size_t count, void *options)
{
    char name[64], value[64], said[160], list[640] = "";
    lk_status s = LK_OK;
    while (*text && s == LK_OK) {
        size_t n = strcspn(text, ","), equal = strcspn(text, "=,"), k = 0;
        if (equal == n || equal >= sizeof name || n - equal > sizeof value)
            return lk_fail(LK_INVALID, "%s: %.*s is no KEY=VALUE", what, (int)n, text);
        snprintf(name, sizeof name, "%.*s", (int)equal, text);
        snprintf(value, sizeof value, "%.*s", (int)(n - equal - 1), text + equal + 1);
        while (k < count && strcmp(keys[k].name, name) != 0) k++;
        if (k == count) {
            for (size_t i = 0; i < count; i++)
                snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", keys[i].name);
            return lk_fail(LK_INVALID, "%s: there is no %s; there are %s", what, name, list);
        }
        snprintf(said, sizeof said, "%s %s", what, name);
        s = set_field(&keys[k], said, value, options);
        text += n + (text[n] == ',');
    }
    return s;
}

/* The name before the colon; *rest is what follows it, "" without one. */
static lk_status split(const char *what, const char *text, char name[32], const char **rest)
{
    size_t n = strcspn(text, ":");
    *rest = "";
    if (n >= 32) return lk_fail(LK_INVALID, "%s %s: there is no such", what, text);
    if (text[n] && !text[n + 1]) return lk_fail(LK_INVALID, "%s %s: nothing follows the colon", what, text);
    snprintf(name, 32, "%.*s", (int)n, text);
    *rest = text + n + (text[n] == ':');
    return LK_OK;
}

lk_status cli_read_loss(const char *text, lk_loss_options *out)
{
    lk_loss_kind kind;
    char name[32];
    const char *rest;
    lk_status s;
    LK_TRY(split("--loss", text, name, &rest));
    LK_TRY(lk_loss_kind_of(name, &kind));
    *out = lk_loss_defaults(kind);
    s = read_keys("--loss", rest, loss_keys, sizeof loss_keys / sizeof *loss_keys, out);
done:
    return s;
}

lk_status cli_read_miner(const char *text, lk_miner_options *out)
{
    lk_miner_kind kind;
    char name[32];
    const char *rest;
    lk_status s;
    LK_TRY(split("--miner", text, name, &rest));
    LK_TRY(lk_miner_kind_of(name, &kind));
    *out = lk_miner_defaults(kind);
    s = read_keys("--miner", rest, miner_keys, sizeof miner_keys / sizeof *miner_keys, out);
done:
    return s;
}

/* ---- heads and pairs ---- */

lk_status cli_read_auxiliary(const char *text, lk_auxiliary_options *out)
{
    char weight[32];
    const char *rest;
    lk_status s;
    *out = (lk_auxiliary_options){.smoothing = 0.1};
    LK_TRY(split("--auxiliary", text, weight, &rest));
    LK_TRY(cli_read_number("--auxiliary", weight, 1e-6, 1e6, &out->weight));
    LK_TRY(read_keys("--auxiliary", rest, auxiliary_keys, sizeof auxiliary_keys / sizeof *auxiliary_keys, out));
    if (out->smoothing == 0) out->smoothing = -1; /* asked for, and not left out */
done:
    return s;
}

lk_status cli_read_whiten(const char *text, lk_whiten_kind *kind, size_t *dim)
{
    static const char *const words[] = {"none", "pca", "learnt"};
    char name[32];
    const char *rest;
    double number = 0;
    int word = 0;
    lk_status s;
    LK_TRY(split("--whiten", text, name, &rest));
    LK_TRY(cli_read_word("--whiten", name, words, 3, &word));
    if (*rest) LK_TRY(cli_read_number("--whiten", rest, 1, 8192, &number));
    if (number != (double)(size_t)number) s = lk_fail(LK_INVALID, "--whiten %s: no whole number", text);
    *kind = (lk_whiten_kind)word;
    *dim = (size_t)number;
done:
    return s;
}

static lk_status read_descriptors(const char *text, lk_head_options *out)
{
    static const char *const kinds[LK_CGD_KINDS] = {"avg", "max", "gem"};
    lk_status s = LK_OK;
    while (*text && s == LK_OK) {
        char name[16];
        int kind = 0;
        size_t n = strcspn(text, "+");
        snprintf(name, sizeof name, "%.*s", (int)(n < 15 ? n : 15), text);
        s = cli_read_word("--pool cgd", name, kinds, LK_CGD_KINDS, &kind);
        if (s == LK_OK) out->descriptors[kind] = true;
        text += n + (text[n] == '+');
    }
    return s;
}

/* "3", "whiten" or "3,whiten". */
static lk_status read_regions(const char *text, lk_head_options *out)
{
    char levels[32];
    size_t n = strcspn(text, ",");
    double number = 0;
    lk_status s = LK_OK;
    if (strcmp(text, "whiten") != 0) {
        snprintf(levels, sizeof levels, "%.*s", (int)(n < 31 ? n : 31), text);
        LK_TRY(cli_read_number("--pool rmac", levels, 1, 8, &number));
        if (number != (double)(unsigned)number) LK_TRY(lk_fail(LK_INVALID, "--pool rmac:%s: no whole number", levels));
        out->levels = (unsigned)number;
        text += n + (text[n] == ',');
    }
    out->whiten_regions = strcmp(text, "whiten") == 0;
    if (*text && !out->whiten_regions)
        s = lk_fail(LK_INVALID, "--pool rmac: %s follows the levels, and only whiten can", text);
done:
    return s;
}

lk_status cli_read_pool(const char *text, lk_head_options *out)
{
    static const char *const pools[] = {"avg", "max", "gem", "rmac", "cgd", "cls", "gem-channels"};
    char name[32];
    const char *rest;
    int pool = 0;
    double number = 0;
    lk_status s;
    LK_TRY(split("--pool", text, name, &rest));
    LK_TRY(cli_read_word("--pool", name, pools, 7, &pool));
    out->p_per_channel = pool == 6;
    out->pool = pool == 6 ? LK_HEAD_GEM : (lk_head_pool)pool;
    if (!*rest) goto done;
    switch (out->pool) {
    case LK_HEAD_GEM:
        LK_TRY(cli_read_number("--pool gem", rest, 1, 100, &number));
        out->p = (float)number;
        out->fixed_p = true;
        break;
    case LK_HEAD_RMAC: LK_TRY(read_regions(rest, out)); break;
    case LK_HEAD_CGD: LK_TRY(read_descriptors(rest, out)); break;
    default: s = lk_fail(LK_INVALID, "--pool %s takes nothing after a colon", name);
    }
done:
    return s;
}

lk_status cli_read_pairs(const char *text, lk_pair_rule *out)
{
    char first[32];
    size_t n = strcspn(text, ",");
    lk_status s = LK_OK;
    *out = (lk_pair_rule){.soft = strcmp(text, "soft") == 0};
    if (out->soft) return LK_OK;
    snprintf(first, sizeof first, "%.*s", (int)(n < 31 ? n : 31), text);
    LK_TRY(cli_read_number("--pairs", first, 1e-9, 1, &out->positive));
    if (text[n]) LK_TRY(cli_read_number("--pairs", text + n + 1, 0, 1, &out->negative));
    if (out->negative >= out->positive)
        s = lk_fail(LK_INVALID, "--pairs %s: what is unlike must be less alike than what is alike", text);
done:
    return s;
}
