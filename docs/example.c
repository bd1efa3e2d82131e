/* A collection from a CSV of pictures, and a search in it:
 *
 *     cc example.c $(pkg-config --cflags --libs likeness) -o example
 *     ./example pictures.csv model pictures.lk query.jpg
 *
 * The model is learnt from the pictures and moves into the collection. */
#include <likeness/likeness.h>
#include <stdio.h>

static lk_status load(void *list, size_t i, const lk_image_options *options, lk_image *out)
{
    return lk_image_load(lk_sources_at(list, i)->path, options, out);
}

int main(int argc, char **argv)
{
    lk_context *context = NULL;
    lk_source_list *list = NULL;
    lk_embedder *embedder = NULL;
    lk_collection *collection = NULL;
    lk_searcher *searcher = NULL;
    lk_image query;
    lk_results results;
    if (argc != 5) {
        fprintf(stderr, "usage: example PICTURES.csv MODEL COLLECTION.lk QUERY\n");
        return 2;
    }
    if (lk_context_new(NULL, &context) || lk_sources_new(&list) || lk_sources_add_csv(list, argv[1]) ||
        lk_classical_train(context, NULL, lk_sources_count(list), load, list, &embedder) ||
        lk_embedder_save(embedder, argv[2]))
        goto failed;
    lk_collection_config config = {.dim = lk_embedder_dim(embedder),
                                   .metric = LK_COSINE,
                                   .embedder_id = lk_embedder_id(embedder),
                                   .embedder_name = lk_embedder_name(embedder),
                                   .model_dir = argv[2]};
    if (lk_collection_create(argv[3], &config, &collection) ||
        lk_ingest(context, collection, embedder, list, NULL, NULL))
        goto failed;
    lk_collection_close(collection);
    if (lk_searcher_open(context, argv[3], &searcher) || lk_query_image_load(searcher, argv[4], NULL, NULL, &query) ||
        lk_search_image(searcher, &query, NULL, &results))
        goto failed;
    for (size_t i = 0; i < results.count; i++)
        printf("%.4f %s\n", (double)results.items[i].score, results.items[i].label);
    lk_results_free(&results);
    lk_image_free(&query);
    lk_searcher_free(searcher);
    lk_embedder_free(embedder);
    lk_sources_free(list);
    lk_context_free(context);
    return 0;
failed:
    fprintf(stderr, "%s\n", lk_error_message());
    return 1;
}
