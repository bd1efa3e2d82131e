/* likeness serve: HTTP API and web page. */
#include "base/error.h"
#include "cli/cli.h"
#include "late/late.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int run(int argc, char **argv);
const cli_command cli_serve = {"serve", "COLLECTION.lk [--port 8080] [--address 127.0.0.1]",
                               "Serve the HTTP API and the web page of a collection", run};

static int run(int argc, char **argv)
{
    cli_common common = {0};
    uint64_t port = 8080, upload = 0;
    const char *address = "127.0.0.1";
    const cli_option options[] = {
        {.name = "--port", .value = "N", .help = "default 8080; 0 takes any free one", .number = &port, .most = 65535},
        {.name = "--address", .value = "IP", .help = "default 127.0.0.1: this machine alone", .text = &address},
        {.name = "--max-upload",
         .value = "BYTES",
         .help = "of all pictures of one search together (default 32 MiB)",
         .number = &upload,
         .least = 1,
         .most = 1u << 30},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_serve, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_serve, "one collection is wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_server *server = NULL;
    lk_server_options how = {.address = address, .port = (uint16_t)port, .max_upload_bytes = upload};
    lk_status s;
    LK_TRY(lk_searcher_open(context, argv[0], &searcher));
    /* What a search will need is loaded now: files may be replaced while the server runs. */
    LK_TRY(lk_image_prepare(NULL));
    lk_late_load_all();
    if (lk_embedder_prepare(lk_searcher_embedder(searcher)) != LK_OK) /* without, it can still search by number */
        cli_fail("serve: no search by a picture will succeed");
    LK_TRY(lk_server_new(context, searcher, &how, &server));
    printf("serving %s (%zu pictures) on http://%s%s%s:%u/ ; Ctrl-C stops\n", argv[0], lk_searcher_count(searcher),
           strchr(address, ':') ? "[" : "", address, strchr(address, ':') ? "]" : "", lk_server_port(server));
    fflush(stdout);
    while (!lk_context_cancelled(context)) nanosleep(&(struct timespec){0, 100000000}, NULL);
    lk_server_free(server);
    server = NULL;
done:
    lk_searcher_free(searcher);
    cli_context_free(context);
    return s == LK_OK ? EXIT_DONE : cli_fail("serve");
}
