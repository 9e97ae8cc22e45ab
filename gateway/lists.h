/* lists.h - /api/v1/accounts, runs, dead and revisions: rows of tables, newest or first by name. */
#ifndef UF_GATEWAY_LISTS_H
#define UF_GATEWAY_LISTS_H

struct gateway;
struct request;

void accounts_asked(struct gateway *g, struct request *r);
void runs_asked(struct gateway *g, struct request *r);
void dead_asked(struct gateway *g, struct request *r);
void revisions_asked(struct gateway *g, struct request *r);

#endif
