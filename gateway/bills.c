#include "gateway/bills.h"

#include "common/pg.h"
#include "common/providers/provider.h"

/* A feed whose rows carry a cost; a currency alone may be an estimate's. */
static bool is_bill(const struct feed *feed)
{
    for (size_t i = 0; i < feed->n_fields; i++)
        if (feed->fields[i].use == FIELD_COST)
            return true;
    return false;
}

const char *bills(struct arena *a)
{
    struct pg_array names;

    pg_array_open(&names, a);
    for (size_t p = 0; p < n_providers; p++)
        for (size_t i = 0; i < providers[p]->n_feeds; i++)
            if (is_bill(&providers[p]->feeds[i]))
                pg_array_text(&names, text_of(providers[p]->feeds[i].name));
    return pg_array_close(&names);
}
