/* Libraries that are loaded when one of their functions is first called.
 *
 * A search by number needs neither libvips with its ninety libraries nor oneDNN, yet to load and relocate them all took
 * half of its time. So the linker is not told of these libraries: `stubs` writes, for each of their functions that our
 * objects call, a stub of that name, which loads the library and then always jumps where the function is. Sources call
 * the functions as ever. Where the stubs are not known (other processors than x86-64 and ARM64) the libraries are
 * linked in the ordinary way, and only lk_late_symbol remains. */
#ifndef LK_LATE_LATE_H
#define LK_LATE_LATE_H

/* The address of a variable of such a library, which no stub can stand for; the program ends when there is none, as it
 * does when a library is missing. library: any part of its file's name, "libhdf5". */
void *lk_late_symbol(const char *library, const char *name);

#endif
