/* flight.h - the same question, asked by many at once, is one query.
 *
 * The first asker of a small answer leads; who asks the same while the query runs follows and gets
 * a copy, and so does who asks within FLIGHT_KEEP_US after. So a wall of dashboards, or a storm of
 * requests, costs the database what one of them costs. */
#ifndef UF_GATEWAY_FLIGHT_H
#define UF_GATEWAY_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "gateway/gateway.h"
#include "gateway/query.h"

struct request;
struct flights;

#define FLIGHTS_MAX    64
#define FLIGHT_KEEP_US (INT64_C(2) * 1000000)
#define FLIGHT_KEEP    ((size_t)1 << 20) /* a larger answer is not kept */

void flights_open(struct flights **out);
void flights_close(struct flights **f); /* accepts NULL */

/* Whether `r` need not ask: it has been answered, or will be with the others. False: it leads, and
 * ends with flight_answer or flight_fail. What is asked are the statements with their parameters.
 */
bool flight_join(struct request *r, const struct statement *statements, size_t n);

/* 200 and JSON, to the leader and all who follow. */
void flight_answer(struct request *leader, struct text body);
void flight_fail(struct request *leader, enum status st, const char *sqlstate,
                 const struct err *err);

#endif
