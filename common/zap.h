/* zap.h - the doorkeeper of the links that this process binds over TCP.
 *
 * libzmq asks it about each connection by a message inside the process (RFC 27, ZAP), and lets
 * nobody in before it has answered. It answers from UF_CURVE_KEYS: a key that is listed there, of a
 * role that may connect to that very link. The links set ZMQ_ZAP_ENFORCE_DOMAIN, so without a
 * doorkeeper nobody comes in. */
#ifndef UF_ZAP_H
#define UF_ZAP_H

#include "common/options.h"
#include "common/pulse.h"
#include "common/status.h"

struct zap;

/* One a context, before the links are bound. ST_FATAL: as keys_open. */
enum status zap_open(struct zap **out, void *zmq_ctx, const struct config *cfg,
                     struct err *err) CHECKED;
void zap_close(struct zap **z); /* accepts NULL */

/* Readable when somebody asks. */
void *zap_socket(const struct zap *z);

/* Answers all that ask. Who is refused is counted in `pulse`, and logged once a source. */
void zap_serve(struct zap *z, struct pulse *pulse);

#endif
