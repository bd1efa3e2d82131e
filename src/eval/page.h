/* The page of a report: one HTML file with its style, its script and its data inside, so that it opens from disk. */
#ifndef LK_EVAL_PAGE_H
#define LK_EVAL_PAGE_H

#include <likeness/status.h>

extern const char lk_report_html[], lk_report_css[], lk_report_js[]; /* web/report/ */

/* Writes FOLDER/index.html; the folder is made when missing. title is plain text, data JSON text. */
lk_status lk_report_page(const char *folder, const char *title, const char *data);

#endif
