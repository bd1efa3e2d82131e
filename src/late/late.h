/* Libraries that are loaded when one of their functions is first called.
 *
 * A search by number needs neither libvips with its ninety libraries nor oneDNN, yet to load and relocate them all took
 * half of its time. So the linker is not told of these libraries: `stubs` writes, for each of their functions that our
 * objects call, a stub of that name, which loads the library and then always jumps where the function is. Sources call
 * the functions as ever. Where the stubs are not known (other processors than x86-64 and ARM64) the libraries are
 * linked in the ordinary way, and only lk_late_symbol remains. */
#ifndef LK_LATE_LATE_H
#define LK_LATE_LATE_H

/* Loads a library before one of its functions is called, where a missing one is to be a failure like others and not the
 * end of the program. library: any part of its file's name, "libvips". NULL when all its functions are found (at once,
 * if they were before) or it is linked; else a sentence, this thread's, that names the library and what is wrong. Any
 * thread. */
const char *lk_late_try(const char *library);

/* Loads all of them, but for those that are missing: for a program that runs long, in which files may be replaced. */
void lk_late_load_all(void);

/* The address of a variable of such a library, which no stub can stand for; the program ends when there is none, as it
 * does when a library is missing. library: as above. */
void *lk_late_symbol(const char *library, const char *name);

#endif
