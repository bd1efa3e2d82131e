#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool lk_path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

char *lk_path_join(const char *a, const char *b)
{
    if (b[0] == '/' || a[0] == 0) return strdup(b);
    char *out;
    size_t n = strlen(a);
    return asprintf(&out, "%s%s%s", a, a[n - 1] == '/' ? "" : "/", b) < 0 ? NULL : out;
}

lk_status lk_path_absolute(const char *path, char **out)
{
    *out = NULL;
    if (path[0] == 0) return lk_fail(LK_INVALID, "the path is empty");
    char *cwd = NULL, *joined = NULL;
    if (path[0] != '/') {
        cwd = getcwd(NULL, 0);
        if (!cwd) return lk_fail_errno(errno, "%s: the working folder cannot be told", path);
    }
    joined = lk_path_join(cwd ? cwd : "", path);
    free(cwd);
    if (!joined) return lk_fail_memory(path);
    /* Resolve "." and ".." in place: `to` never runs ahead of `from`. */
    char *to = joined;
    for (const char *from = joined; *from;) {
        while (*from == '/') from++;
        const char *end = from;
        while (*end && *end != '/') end++;
        size_t n = (size_t)(end - from);
        if (n == 2 && from[0] == '.' && from[1] == '.') {
            while (to > joined && *--to != '/') {
            }
        } else if (n > 0 && !(n == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, n);
            to += n;
        }
        from = end;
    }
    if (to == joined) *to++ = '/';
    *to = 0;
    *out = joined;
    return LK_OK;
}

lk_status lk_make_dirs(const char *path)
{
    char *copy = strdup(path);
    if (!copy) return lk_fail_memory(path);
    lk_status s = LK_OK;
    for (char *p = copy + 1; s == LK_OK; p++) {
        if (*p != '/' && *p != 0) continue;
        char kept = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) s = lk_fail_errno(errno, "%s: cannot be created", copy);
        *p = kept;
        if (!kept) break;
    }
    struct stat st;
    if (s == LK_OK && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        s = lk_fail(LK_IO, "%s: exists and is not a folder", path);
    free(copy);
    return s;
}

bool lk_utf8_valid(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        unsigned c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4) return false; /* 80..c1: continuation or overlong; f5..: beyond U+10FFFF */
        unsigned low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;  /* overlong forms */
        unsigned high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf; /* surrogates; beyond U+10FFFF */
        if (*p < low || *p > high) return false;
        for (p++, more--; more > 0; p++, more--)
            if (*p < 0x80 || *p > 0xbf) return false;
    }
    return true;
}

lk_status lk_make_dirs_above(const char *path)
{
    char *absolute;
    lk_status s = lk_path_absolute(path, &absolute);
    if (s != LK_OK) return s;
    char *slash = strrchr(absolute, '/');
    slash[slash == absolute] = 0; /* "/x" lies in "/" */
    s = lk_fail_in(lk_make_dirs(absolute), "%s: cannot be created", path);
    free(absolute);
    return s;
}

int lk_utf8_fit(const char *text, size_t most)
{
    size_t n = strnlen(text, most), lead = n;
    if (n < most) return (int)n;
    while (lead && n - lead < 3 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80) lead--;
    if (!lead) return (int)n;
    unsigned char c = (unsigned char)text[lead - 1];
    size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    return (int)(length > n - lead + 1 ? lead - 1 : n);
}
