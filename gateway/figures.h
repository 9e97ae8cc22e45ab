/* figures.h - /api/v1/usage and /api/v1/cost: sums by time and dimensions. */
#ifndef UF_GATEWAY_FIGURES_H
#define UF_GATEWAY_FIGURES_H

struct gateway;
struct request;

void usage_asked(struct gateway *g, struct request *r);
void cost_asked(struct gateway *g, struct request *r);

#endif
