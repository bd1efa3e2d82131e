#include "late/late.h"
#include "late/table.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static unsigned library_named(const char *name)
{
    unsigned library = 0;
    while (library < lk_late_library_count && !strstr(lk_late_libraries[library].soname, name)) library++;
    return library;
}

/* scope: RTLD_LOCAL or RTLD_GLOBAL. NULL when it cannot be loaded: dlerror says why. */
static void *load(unsigned library, int scope)
{
    if (library == lk_late_library_count) return dlopen(NULL, RTLD_LAZY); /* what is linked */
    const lk_late_library *l = &lk_late_libraries[library];
    /* LAPACK's C interface is linked to whichever BLAS the system prefers. With OpenBLAS there first, for all to see,
     * it finds that one's routines, as it would if both were linked to this program. */
    if (strstr(l->soname, "lapacke") && !load(library_named("openblas"), RTLD_GLOBAL)) return NULL;
    /* What it needs comes first, each by itself: a library's references are looked up in all that is loaded with it,
     * one after another. All at once, libvips' hundred libraries take a third longer. One that is missing, the library
     * does not need any more, or the last call says so. */
    for (size_t i = 0; l->needs[i]; i++) dlopen(l->needs[i], RTLD_LAZY | RTLD_LOCAL);
    return dlopen(l->soname, RTLD_LAZY | scope);
}

static const char *what_is_wrong(void)
{
    static _Thread_local char text[512];
    const char *why = dlerror();
    snprintf(text, sizeof text, "a library is missing or not the one this program was built with: %s", why ? why : "");
    return text;
}

/* All functions of a library at once: later ones would wait where another thread loads another library. Several threads
 * may do the same and find the same. NULL, or what is wrong. */
static const char *bind_library(unsigned library)
{
    if (library == lk_late_library_count || __atomic_load_n(&lk_late_libraries[library].bound, __ATOMIC_ACQUIRE))
        return NULL;
    void *handle = load(library, RTLD_LOCAL);
    if (!handle) return what_is_wrong();
    for (unsigned i = 0; lk_late_functions[i].name; i++) {
        if (lk_late_functions[i].library != library) continue;
        void *found = dlsym(handle, lk_late_functions[i].name);
        if (!found) return what_is_wrong();
        __atomic_store_n(&lk_late_slots[i], found, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&lk_late_libraries[library].bound, true, __ATOMIC_RELEASE);
    return NULL;
}

const char *lk_late_try(const char *library)
{
    return bind_library(library_named(library));
}

void lk_late_load_all(void)
{
    for (unsigned i = 0; i < lk_late_library_count; i++) bind_library(i);
}

/* As the dynamic linker would have ended the program before main. */
static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "likeness: %s\n", why);
    _exit(127);
}

/* Called by a stub the first time. */
__attribute__((visibility("hidden"))) void *lk_late_bind(unsigned number);
void *lk_late_bind(unsigned number)
{
    const char *wrong = bind_library(lk_late_functions[number].library);
    if (wrong) give_up(wrong);
    return __atomic_load_n(&lk_late_slots[number], __ATOMIC_ACQUIRE);
}

void *lk_late_symbol(const char *library, const char *name)
{
    void *handle = load(library_named(library), RTLD_LOCAL), *found = handle ? dlsym(handle, name) : NULL;
    if (!found) give_up(what_is_wrong());
    return found;
}
