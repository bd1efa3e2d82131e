#include "base/error.h"

#include "base/file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[LK_ERROR_SIZE];

const char *lk_error_message(void)
{
    return message;
}

const char *lk_status_name(lk_status status)
{
    switch (status) {
    case LK_OK: return "ok";
    case LK_INVALID: return "invalid argument";
    case LK_NOT_FOUND: return "not found";
    case LK_CORRUPT: return "corrupt";
    case LK_IO: return "input/output error";
    case LK_NO_MEMORY: return "out of memory";
    case LK_UNSUPPORTED: return "unsupported";
    case LK_CANCELLED: return "cancelled";
    case LK_CONFLICT: return "conflict";
    case LK_LIMIT: return "limit exceeded";
    }
    return "unknown status";
}

/* Formats into a buffer of its own first, because an argument may point into the present message. What is too long ends
 * with a whole character; a suffix says why, so half of the room is its own. */
static void set_message(const char *format, va_list args, const char *suffix)
{
    char text[LK_ERROR_SIZE];
    const size_t room = sizeof text - 1;
    size_t length = strlen(suffix), kept = length < room / 2 ? length : room / 2;
    if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
    size_t used = (size_t)lk_utf8_fit(text, room - kept);
    length = (size_t)lk_utf8_fit(suffix, room - used);
    memcpy(text + used, suffix, length);
    text[used + length] = 0;
    memcpy(message, text, sizeof text);
}

lk_status lk_fail(lk_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(format, args, "");
    va_end(args);
    return status;
}

lk_status lk_fail_errno(int err, const char *format, ...)
{
    char suffix[256], reason[160];
    lk_status status = LK_IO;
    const char *text = strerror_r(err, reason, sizeof reason); /* the GNU form: may return a static string instead */
    if (err == ENOENT || err == ENOTDIR) status = LK_NOT_FOUND;
    if (err == ENOMEM) status = LK_NO_MEMORY;
    if (err == ENOSPC || err == EDQUOT)
        snprintf(suffix, sizeof suffix, ": the disk is full: free some space and run the same command again");
    else
        snprintf(suffix, sizeof suffix, ": %s", text);
    va_list args;
    va_start(args, format);
    set_message(format, args, suffix);
    va_end(args);
    return status;
}

lk_status lk_fail_in(lk_status status, const char *format, ...)
{
    if (status == LK_OK) return status;
    char suffix[LK_ERROR_SIZE + 2];
    snprintf(suffix, sizeof suffix, ": %s", message);
    va_list args;
    va_start(args, format);
    set_message(format, args, suffix);
    va_end(args);
    return status;
}

lk_status lk_fail_memory(const char *what)
{
    return lk_fail(LK_NO_MEMORY, "out of memory (%s)", what);
}
