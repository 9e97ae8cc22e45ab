#include "gateway/flight.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/request.h"

struct flight {
    char *question; /* NULL: unused */
    struct request *leader, *followers;
    char *answer; /* kept */
    size_t answer_len;
    int64_t at_us; /* of the answer */
};

struct flights {
    struct flight at[FLIGHTS_MAX];
};

void flights_open(struct flights **out)
{
    *out = xalloc(1, sizeof(**out));
}

static void flight_clear(struct flight *f)
{
    free(f->question);
    free(f->answer);
    *f = (struct flight){.question = NULL};
}

void flights_close(struct flights **f)
{
    if (!*f)
        return;
    for (size_t i = 0; i < FLIGHTS_MAX; i++)
        flight_clear(&(*f)->at[i]);
    free(*f);
    *f = NULL;
}

/* Each part with its length, so that no two questions look the same. In the request's arena. */
static const char *question_of(struct request *r, const struct statement *statements, size_t n)
{
    struct buf b = {.arena = r->arena};

    for (size_t i = 0; i < n; i++) {
        const struct pg_params *p = &statements[i].params;

        buf_str(&b, statements[i].sql);
        for (int k = 0; k < p->n; k++)
            buf_printf(&b, "\n%zu:%s", p->values[k] ? strlen(p->values[k]) : 0,
                       p->values[k] ? p->values[k] : "null");
    }
    return b.at;
}

static struct flight *flight_of(struct request *leader)
{
    struct flights *all = leader->gateway->flights;

    for (size_t i = 0; i < FLIGHTS_MAX; i++)
        if (all->at[i].leader == leader)
            return &all->at[i];
    return NULL;
}

static void leader_gone(struct request *r)
{
    struct flight *f = flight_of(r);

    if (f) /* only at the gateway's end: a connection that sleeps is not looked at */
        f->leader = NULL;
}

static void follower_gone(struct request *r)
{
    struct flights *all = r->gateway->flights;

    for (size_t i = 0; i < FLIGHTS_MAX; i++) {
        struct request **link = &all->at[i].followers;

        while (*link && *link != r)
            link = &(*link)->next_waiter;
        if (*link)
            *link = r->next_waiter;
    }
}

bool flight_join(struct request *r, const struct statement *statements, size_t n)
{
    struct flights *all = r->gateway->flights;
    const char *question = question_of(r, statements, n);
    int64_t now = clock_mono_us();
    struct flight *place = NULL;

    for (size_t i = 0; i < FLIGHTS_MAX; i++) {
        struct flight *f = &all->at[i];
        bool same = f->question && strcmp(f->question, question) == 0;

        if (same && f->leader) {
            r->next_waiter = f->followers;
            f->followers = r;
            r->abandoned = follower_gone;
            return true;
        }
        if (same && f->answer && now - f->at_us < FLIGHT_KEEP_US) {
            answer_json(r, MHD_HTTP_OK, (struct text){f->answer, f->answer_len});
            return true;
        }
        if (!f->leader && (!place || f->at_us < place->at_us))
            place = f;
    }
    if (place) { /* else all are in the air, and this one flies alone */
        flight_clear(place);
        place->question = xstrdup(question);
        place->leader = r;
        r->abandoned = leader_gone;
    }
    return false;
}

static struct request *next_follower(struct flight *f)
{
    struct request *r = f->followers;

    if (r) {
        f->followers = r->next_waiter;
        r->abandoned = NULL;
    }
    return r;
}

void flight_answer(struct request *leader, struct text body)
{
    struct flight *f = flight_of(leader);

    leader->abandoned = NULL;
    answer_json(leader, MHD_HTTP_OK, body);
    if (!f)
        return;
    f->leader = NULL;
    for (struct request *r; (r = next_follower(f));)
        answer_json(r, MHD_HTTP_OK, body);
    f->at_us = clock_mono_us();
    if (body.len > FLIGHT_KEEP)
        return;
    f->answer = xalloc(body.len + 1, 1);
    memcpy(f->answer, body.at, body.len);
    f->answer_len = body.len;
}

void flight_fail(struct request *leader, enum status st, const char *sqlstate,
                 const struct err *err)
{
    struct flight *f = flight_of(leader);

    leader->abandoned = NULL;
    answer_query_failed(leader, st, sqlstate, err);
    if (!f)
        return;
    f->leader = NULL;
    for (struct request *r; (r = next_follower(f));)
        answer_query_failed(r, st, sqlstate, err);
    flight_clear(f);
}
