/* health.h - /healthz, /readyz, /metrics and /api/v1/stages: how the pipeline itself is. */
#ifndef UF_GATEWAY_HEALTH_H
#define UF_GATEWAY_HEALTH_H

#include "gateway/gateway.h"

struct request;
struct scrape;

/* What the database says for /readyz and /metrics is kept for some seconds, so that a storm of
 * scrapes is one query. */
void scrape_open(struct scrape **out, struct gateway *g);
void scrape_close(struct scrape **at); /* accepts NULL */

void healthz_asked(struct gateway *g, struct request *r);
void readyz_asked(struct gateway *g, struct request *r);
void metrics_asked(struct gateway *g, struct request *r);
void stages_asked(struct gateway *g, struct request *r);

#endif
