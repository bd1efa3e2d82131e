/* Which pictures a drawing carries within itself. Text search would not do: XML can spell one URL in endless ways
 * (character references, entities, encodings), so the same parser that librsvg uses reads the drawing, and what it says
 * is checked. */
#include "image/svg.h"

#include "base/error.h"
#include "image/format.h"
#include "image/raster.h"
#include "image/vips.h"

#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

/* What the entities of a drawing may hold together. librsvg 2.54 never frees the text of an entity: without a limit
 * each upload could take its own size of memory away from a server for good. Drawing programs declare about twenty
 * short ones, each counted with what an allocation takes at least. */
enum { ENTITY_BYTES = 16384, ENTITY_LEAST = 100 };

typedef struct inspection {
    const char *name;
    uint64_t max_pixels;
    double pixels;   /* of all embedded pictures */
    size_t entities; /* bytes */
    lk_status status;
} inspection;

/* A copy without what a URL parser drops: blanks in front, and tabs and line ends anywhere. g_free it. */
static char *plain_url(const xmlChar *value, size_t length)
{
    char *url = g_malloc(length + 1), *to = url;
    for (size_t i = 0; i < length; i++) {
        if (value[i] == '\t' || value[i] == '\n' || value[i] == '\r' || (to == url && value[i] <= ' ')) continue;
        *to++ = (char)value[i];
    }
    *to = 0;
    return url;
}

static lk_status check_bytes(inspection *in, const guchar *bytes, size_t size)
{
    const char *format_name;
    lk_picture_format format = lk_picture_sniff(bytes, size, &format_name);
    /* Above all no SVG within an SVG: it would be rendered at any size it asks for. */
    if (format != LK_PICTURE_JPEG && format != LK_PICTURE_PNG && format != LK_PICTURE_GIF && format != LK_PICTURE_WEBP)
        return lk_fail(LK_UNSUPPORTED, "%s: the drawing embeds a picture of a kind that is not read there (%s)",
                       in->name, format_name);
    lk_raster header;
    lk_status s = lk_vips_start();
    if (s == LK_OK) s = lk_raster_open(&(lk_raster_source){bytes, size, in->name, format_name, format}, &header);
    if (s != LK_OK) return s;
    in->pixels += (double)header.width * header.height;
    lk_raster_close(&header);
    if (in->max_pixels && in->pixels > (double)in->max_pixels)
        return lk_fail(LK_LIMIT,
                       "%s: pictures of %.0f pixels embedded in the drawing are over the limit of %g megapixels",
                       in->name, in->pixels, (double)in->max_pixels / 1e6);
    return LK_OK;
}

/* url is of the form data:[type][;base64],contents. References to elsewhere need no check: librsvg follows none. */
static lk_status check_url(inspection *in, char *url)
{
    if (strncasecmp(url, "data:", 5) != 0) return LK_OK;
    char *contents = strchr(url, ',');
    if (!contents) return LK_OK;
    *contents++ = 0;
    gsize size;
    char *fragment = strchr(contents, '#');
    if (fragment) *fragment = 0;
    GBytes *raw = g_uri_unescape_bytes(contents, -1, NULL, NULL);
    if (!raw) return lk_fail(LK_UNSUPPORTED, "%s: the drawing embeds a picture whose address is malformed", in->name);
    guchar *bytes = g_bytes_unref_to_data(raw, &size);
    if (strcasestr(url, "base64")) {
        bytes = g_realloc(bytes, size + 1);
        bytes[size] = 0;
        if (size) g_base64_decode_inplace((char *)bytes, &size);
    }
    lk_status s = check_bytes(in, bytes, size);
    g_free(bytes);
    return s;
}

/* libxml2's SAX2 callback for an element; attributes are [count][5]: local name, prefix, namespace, value, its end. */
static void element(void *user, const xmlChar *name, const xmlChar *prefix, const xmlChar *space, int spaces,
                    const xmlChar **declared, int count, int defaulted, const xmlChar **attributes)
{
    (void)prefix, (void)spaces, (void)declared, (void)defaulted;
    xmlParserCtxt *parser = user;
    inspection *in = parser->_private;
    if (in->status != LK_OK) return;
    if (space && strcasestr((const char *)space, "XInclude"))
        in->status = lk_fail(LK_UNSUPPORTED, "%s: the drawing includes other documents, which are not read", in->name);
    bool shows_picture = strcmp((const char *)name, "image") == 0 || strcmp((const char *)name, "feImage") == 0;
    for (int i = 0; shows_picture && i < count && in->status == LK_OK; i++) {
        const xmlChar **a = attributes + (ptrdiff_t)i * 5;
        if (strcmp((const char *)a[0], "href") != 0) continue;
        char *url = plain_url(a[3], (size_t)(a[4] - a[3]));
        in->status = check_url(in, url);
        g_free(url);
    }
    if (in->status != LK_OK) xmlStopParser(parser);
}

/* Entities that stand for something outside are forgotten: with NOENT libxml2 would go and read them. */
static void declare_entity(void *user, const xmlChar *name, int type, const xmlChar *public_id,
                           const xmlChar *system_id, xmlChar *content)
{
    xmlParserCtxt *parser = user;
    inspection *in = parser->_private;
    if (in->status != LK_OK) return;
    in->entities += ENTITY_LEAST + (content ? strlen((const char *)content) : 0);
    if (in->entities > ENTITY_BYTES) {
        in->status = lk_fail(LK_LIMIT, "%s: the entities declared in the drawing are over the limit of %d bytes",
                             in->name, (int)ENTITY_BYTES);
        xmlStopParser(parser);
        return;
    }
    if (type == XML_INTERNAL_GENERAL_ENTITY || type == XML_INTERNAL_PARAMETER_ENTITY)
        xmlSAX2EntityDecl(user, name, type, public_id, system_id, content);
}

static void say_nothing(void *user, const char *format, ...)
{
    (void)user, (void)format;
}

lk_status lk_svg_check_embedded(const uint8_t *bytes, size_t size, const char *name, uint64_t max_pixels)
{
    if (size > INT_MAX) return lk_fail(LK_LIMIT, "%s: a drawing of %zu bytes is too large", name, size);
    inspection in = {.name = name, .max_pixels = max_pixels};
    xmlParserCtxt *parser = xmlCreateMemoryParserCtxt((const char *)bytes, (int)size);
    if (!parser) return lk_fail_memory(name);
    /* NOENT: entities are replaced, so that elements within them are seen. Not HUGE: libxml2's limits on depth, on the
     * length of a text and on the growth of entities stand. */
    xmlCtxtUseOptions(parser, XML_PARSE_NOENT | XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    parser->_private = &in;
    parser->sax->startElementNs = element;
    parser->sax->entityDecl = declare_entity;
    parser->sax->externalSubset = NULL;
    parser->sax->resolveEntity = NULL;
    parser->sax->reference = NULL;
    parser->sax->endElementNs = NULL;
    parser->sax->characters = parser->sax->cdataBlock = parser->sax->ignorableWhitespace = NULL;
    parser->sax->comment = NULL;
    parser->sax->processingInstruction = NULL;
    parser->sax->error = parser->sax->warning = parser->sax->fatalError = say_nothing;
    xmlParseDocument(parser); /* whether it is well-formed is librsvg's to say */
    if (parser->myDoc) xmlFreeDoc(parser->myDoc);
    xmlFreeParserCtxt(parser);
    return in.status;
}
