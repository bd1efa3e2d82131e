/* Between bind.c and the file that `stubs` writes. */
#ifndef LK_LATE_TABLE_H
#define LK_LATE_TABLE_H

typedef struct lk_late_function {
    const char *name;
    unsigned library; /* of lk_late_libraries */
} lk_late_function;

extern const char *const lk_late_libraries[]; /* sonames */
extern const unsigned lk_late_library_count;
extern const lk_late_function lk_late_functions[];
extern void *lk_late_slots[] __attribute__((visibility("hidden"))); /* where the stub of each function jumps */

#endif
