#include "s3_gate.h"


#define S3_GATE_UNIT  10000          /* s3_gate_conf_t.percent of the whole */


static uint64_t s3_gate_share(uint64_t total, uint64_t percent,
    uint64_t limit);


void
s3_gate_init(s3_gate_t *g, const s3_gate_conf_t *conf, int64_t total)
{
    uint64_t  step;

    if (total < 0) {
        step = conf->bytes;

    } else {
        step = s3_gate_share((uint64_t) total, conf->percent, conf->bytes);

        if (step < conf->min) {
            step = conf->min;
        }
    }

    /* a step of 0 would open the gate where no byte has moved */

    g->step = step ? step : 1;
    g->next = g->step;
}


/* min(ceil(total * percent / 10000), limit) in 64 bits */

static uint64_t
s3_gate_share(uint64_t total, uint64_t percent, uint64_t limit)
{
    uint64_t  rest, whole;

    whole = total / S3_GATE_UNIT;
    rest = (total % S3_GATE_UNIT * percent + S3_GATE_UNIT - 1) / S3_GATE_UNIT;

    if (percent && whole > limit / percent) {
        return limit;
    }

    whole *= percent;

    return rest > limit - whole ? limit : whole + rest;
}
