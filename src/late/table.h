/* Between bind.c and the file that `stubs` writes. */
#ifndef LK_LATE_TABLE_H
#define LK_LATE_TABLE_H

#include <stdbool.h>

typedef struct lk_late_function {
    const char *name;
    unsigned library; /* of lk_late_libraries */
} lk_late_function;

typedef struct lk_late_library {
    const char *soname;
    const char *const *needs; /* sonames of what it needs, in an order in which each can be loaded; ends with NULL */
    bool bound;               /* all its functions have their slots */
} lk_late_library;

extern lk_late_library lk_late_libraries[];
extern const unsigned lk_late_library_count;
extern const lk_late_function lk_late_functions[];
extern void *lk_late_slots[] __attribute__((visibility("hidden"))); /* where the stub of each function jumps */

#endif
