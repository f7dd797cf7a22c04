/* Words of the command line that limit what a guest may use. Each returns 0, or -EINVAL with one line that says what to give. */
#ifndef TRVMM_VMM_LIMITS_H
#define TRVMM_VMM_LIMITS_H

#include "base/error.h"
#include "base/throttle.h"

/* --io-limit: bytes=SIZE, ops=N, burst=SECONDS, with commas between; at least one of the first two. */
int limits_parse_io(const char *text, struct throttle_limit *limit, struct error *err);

/* --cpu-quota: processors, as 0.5 or 2, from 0.01 to `cpus_max`. In thousandths. */
int limits_parse_cpu(const char *text, unsigned cpus_max, unsigned *thousandths, struct error *err);

#endif
