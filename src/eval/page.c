#include "eval/page.h"

#include "base/error.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_escaped(FILE *file, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        case '&': fputs("&amp;", file); break;
        case '"': fputs("&quot;", file); break;
        default: fputc(*text, file);
        }
    }
}

/* JSON inside a script element: no "<" may stand there, or a label could end the element. */
static void write_data(FILE *file, const char *json)
{
    for (; *json; json++) {
        if (*json == '<')
            fputs("\\u003c", file);
        else
            fputc(*json, file);
    }
}

/* Writes the template with each {{part}} replaced. */
static void write_page(FILE *file, const char *title, const char *data)
{
    const char *at = lk_report_html;
    for (const char *open; (open = strstr(at, "{{")); at = strstr(open, "}}") + 2) {
        fwrite(at, 1, (size_t)(open - at), file);
        if (strncmp(open, "{{title}}", 9) == 0)
            write_escaped(file, title);
        else if (strncmp(open, "{{style}}", 9) == 0)
            fputs(lk_report_css, file);
        else if (strncmp(open, "{{script}}", 10) == 0)
            fputs(lk_report_js, file);
        else
            write_data(file, data);
    }
    fputs(at, file);
}

lk_status lk_report_page(const char *folder, const char *title, const char *data)
{
    lk_status s = lk_make_dirs(folder);
    if (s != LK_OK) return s;
    char *path = lk_path_join(folder, "index.html"), *bytes = NULL;
    size_t size = 0;
    FILE *file = path ? open_memstream(&bytes, &size) : NULL;
    if (!file) {
        free(path);
        return lk_fail_memory("report");
    }
    write_page(file, title, data);
    s = fclose(file) == 0 ? lk_file_write_atomic(path, bytes, size) : lk_fail_memory("report");
    free(bytes);
    free(path);
    return s;
}
