/* reader.h - one way to read every provider that answers with buckets of results.
 *
 *   {"data": [{"start_time": ..., "end_time": ..., "results": [{...}, ...]}, ...],
 *    "has_more": false, "next_page": null}
 *
 * or that is flat, each result with its own time, and a bucket's results spread over pages:
 *
 *   {"data": [{"date": ..., ...}, ...], "has_more": true, "next_page": "..."}
 *
 * The fetcher joins the answers to one question of a flat feed into one page, a JSON array of them,
 * so that a page always holds whole buckets. It replaces all buckets of the question.
 *
 * What differs between providers is data: the envelope's names here, the feed's table of fields in
 * provider.h. A member of a result that the table does not name is kept all the same:
 *
 *   text, true, false   a dimension: goes to dims by its name and counts in the row's key
 *   number              goes to extra by its name
 *   object              its members, named "outer.inner"
 *   array               its JSON as a text in dims; an empty one is nothing
 *   null                nothing
 *   what names a person (any *email*, user_name, project_name, organization_name): dropped
 *
 * Faults have two sizes. A result that can not be understood (a required field missing, a field of
 * the wrong type, an amount that is no decimal, a count above int64, an unknown kind of result) is
 * set aside into bad_rows and the page's others go in. A fault of the page (no array of buckets, a
 * bucket outside of the window or not aligned to its width) makes the whole page a dead letter. */
#ifndef UF_READER_H
#define UF_READER_H

#include "common/providers/provider.h"

struct envelope {
    const char *data;    /* the array of buckets; of a flat feed, of results */
    const char *start;   /* a bucket's start, inclusive; of a flat feed, a time within the bucket */
    const char *end;     /* and end, exclusive; before start + width the bucket is still open.
                            Unused when flat */
    const char *results; /* its array of results; NULL: the feed is flat */
    const char *object;  /* a result's kind, compared with the feed's result_objects; may be NULL */
    const char *has_more;  /* boolean; NULL: the provider's own peek finds the next page */
    const char *next_page; /* the cursor, a text */
    enum { TIMES_UNIX_S, TIMES_RFC3339 } times; /* RFC 3339, or a date alone */
};

#define READER_CURSOR_MAX   8192       /* bytes of a page token: it has to fit into a URL */
#define READER_MEMBERS_MAX  64         /* unknown members of one result */
#define READER_NAME_MAX     200        /* bytes of an unknown member's dotted name */
#define READER_TEXT_MAX     (1 << 20)  /* bytes of one text of a row */
#define READER_PAGE_MAX     (40 << 20) /* bytes that one page's records may take */
#define READER_BAD_ROWS_MAX 100 /* kept one by one; the last tells how many more there were */
#define DEAD_BODY_MAX       (64 << 10) /* bytes of a dead letter's body */

static inline bool feed_is_flat(const struct feed *f)
{
    return f->envelope->results == NULL;
}

/* As provider.h's `peek`; of one answer, not of a joined page. Of a flat feed the hull is the
 * question's window. ST_REJECT: not JSON, no array of buckets, a bucket outside of the window or
 * not aligned, has_more missing or no boolean, or true without a usable cursor. */
enum status reader_peek(struct peek *out, struct arena *a, const struct question *q,
                        struct text body, struct err *err) CHECKED;

/* Page -> records. Spans cover every bucket listed, empty ones too, of a flat feed the whole
 * question; records are sorted by (bucket_start, row_key). A bucket listed twice: the later wins.
 * Two results of one bucket with the same key: equal ones are one record, others are summed.
 * `out` is filled on ST_REJECT too: then the page is a dead letter, and `out->dead` has reason,
 * path and body. */
enum status reader_read(struct record_page *out, struct page_notes *notes, struct arena *a,
                        const struct raw_page *raw, struct err *err) CHECKED;

/* Makes `out` a dead letter of `page` for `reason`. The body is kept without keys and people, as
 * far as it can be read, and as UTF-8 that Postgres stores. */
void reader_bury(struct record_page *out, struct arena *a, const struct page *page,
                 const char *reason, const char *json_path);

#endif
