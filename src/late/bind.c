#include "late/late.h"
#include "late/table.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* As the dynamic linker would have ended the program before main. */
static _Noreturn void give_up(void)
{
    fprintf(stderr, "likeness: a library is missing or not the one this program was built with: %s\n", dlerror());
    _exit(127);
}

static unsigned library_named(const char *name)
{
    unsigned library = 0;
    while (library < lk_late_library_count && !strstr(lk_late_libraries[library].soname, name)) library++;
    return library;
}

static void *load(unsigned library)
{
    const lk_late_library *l = library < lk_late_library_count ? &lk_late_libraries[library] : NULL;
    const char *name = l ? l->soname : NULL;
    /* LAPACK's C interface is linked to whichever BLAS the system prefers. With OpenBLAS there first, for all to see,
     * it finds that one's routines, as it would if both were linked to this program. */
    int blas = name && strstr(name, "openblas");
    if (name && strstr(name, "lapacke")) load(library_named("openblas"));
    /* What it needs comes first, each by itself: a library's references are looked up in all that is loaded with it,
     * one after another. All at once, libvips' hundred libraries take a third longer. One that is missing, the library
     * does not need any more, or the last call says so. */
    for (size_t i = 0; l && l->needs[i]; i++) dlopen(l->needs[i], RTLD_LAZY | RTLD_LOCAL);
    void *handle = dlopen(name, RTLD_LAZY | (blas ? RTLD_GLOBAL : RTLD_LOCAL)); /* NULL: what is linked */
    if (!handle) give_up();
    return handle;
}

static void *look_up(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    if (!found) give_up();
    return found;
}

/* All functions of a library at once: later ones would wait where another thread loads another library. Several threads
 * may do the same and find the same. */
static void bind_library(unsigned library)
{
    void *handle = load(library);
    for (unsigned i = 0; lk_late_functions[i].name; i++)
        if (lk_late_functions[i].library == library)
            __atomic_store_n(&lk_late_slots[i], look_up(handle, lk_late_functions[i].name), __ATOMIC_RELEASE);
}

/* Called by a stub the first time. */
__attribute__((visibility("hidden"))) void *lk_late_bind(unsigned number);
void *lk_late_bind(unsigned number)
{
    bind_library(lk_late_functions[number].library);
    return __atomic_load_n(&lk_late_slots[number], __ATOMIC_ACQUIRE);
}

void *lk_late_symbol(const char *library, const char *name)
{
    return look_up(load(library_named(library)), name);
}
