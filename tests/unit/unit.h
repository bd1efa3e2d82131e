/* What every unit test includes: cmocka with the headers it wants first, and a temporary folder per test. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* UNIT_SOURCE, the root of the source tree, comes from the build. */
#define UNIT_FIXTURES UNIT_SOURCE "/tests/fixtures"

/* cmocka fixtures: *state becomes the path of a fresh folder (char *), removed with all it holds. */
__attribute__((unused)) static int unit_folder(void **state)
{
    char *path = strdup("/tmp/likeness-unit-XXXXXX");
    *state = path;
    return path && mkdtemp(path) ? 0 : -1;
}

__attribute__((unused)) static int unit_remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

__attribute__((unused)) static int unit_folder_remove(void **state)
{
    int failed = nftw(*state, unit_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return failed;
}

__attribute__((unused)) static int unit_count_files(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

#endif
