/* Status codes, the message of the last failure, and the export macro. Every other header includes this one. */
#ifndef LIKENESS_STATUS_H
#define LIKENESS_STATUS_H

#if defined(__GNUC__)
#define LK_API __attribute__((visibility("default")))
#else
#define LK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What every fallible function returns. LK_OK is 0; nothing else is success. */
typedef enum lk_status {
    LK_OK = 0,
    LK_INVALID,     /* an argument or option makes no sense */
    LK_NOT_FOUND,   /* no such file, image, id or collection */
    LK_CORRUPT,     /* stored or supplied bytes fail a check */
    LK_IO,          /* the operating system refused a read or a write (disk full, permission, ...) */
    LK_NO_MEMORY,   /* an allocation failed */
    LK_UNSUPPORTED, /* well-formed, but not something this build or version handles */
    LK_CANCELLED,   /* lk_context_cancel was called */
    LK_CONFLICT,    /* another writer holds the collection, or two things disagree (dimension, model) */
    LK_LIMIT        /* a configured limit (bytes, pixels, request size, ...) was exceeded */
} lk_status;

/* The enumerator's meaning in a few words ("not found"). Never NULL; static. */
LK_API const char *lk_status_name(lk_status status);

/* What went wrong in the last failed call on this thread: one sentence without a trailing full stop that names the file
 * or value and, where there is one, the remedy. Never NULL, "" before any failure. Valid until the next failure on the
 * same thread. */
LK_API const char *lk_error_message(void);

#ifdef __cplusplus
}
#endif
#endif
