/* advice.c - what to do about each ending of a reading. */
#include "cli/cli.h"

static const struct {
    const char *ending, *advice;
} advice[] = {
    {"auth_invalid", "give a valid key: usagectl account rotate-key NAME"},
    {"scope_missing",
     "give the key the missing right at the provider (usagectl providers says which), "
     "or another key: usagectl account rotate-key NAME"},
    {"wrong_key_kind",
     "make the right kind of key (usagectl providers says which and where) and give it: "
     "usagectl account rotate-key NAME"},
    {"rate_limited", "wait, it is tried again; if it stays, see who else uses this organization's "
                     "admin key"},
    {"provider_error", "wait, it is tried again; if it stays, see the provider's status page and "
                       "the account's base URL (usagectl account show NAME)"},
    {"timeout", "wait, it is tried again; if it stays, see this machine's network, or raise "
                "UF_REQUEST_TIMEOUT"},
    {"tls", "see the certificate of the account's base URL; a private authority's goes into "
            "UF_CA_FILE"},
    {"dns", "see the host name in the account's base URL (usagectl account show NAME) and this "
            "machine's name servers"},
    {"protocol",
     "see usagectl dead list, and whether the account's base URL is the provider's API"},
    {"too_large", "raise UF_MAX_BODY, or take wider buckets with UF_BUCKET"},
    {"bad_window", "see the provider's words above; narrow the window of the injection"},
    {"page_cap", "nothing: the next job goes on"},
    {"deadline", "nothing: the next job goes on"},
    {"stopped", "nothing: the next job goes on"},
};

const char *cli_advice(struct text ending)
{
    for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++)
        if (text_is(ending, advice[i].ending))
            return advice[i].advice;
    return NULL;
}
