/* job.pml - the life of an account's jobs, from claim to watermark, for the model checker spin.
 *
 *   scheduler x2 --claim, settle--> ledger (the account's row, its watermark)
 *        |  ^
 *       job  '-------- acks ----------.
 *        v                            |
 *   fetcher x2 --pages--> [network] --> writer x2 --fence, replace, COMMIT--> table
 *
 * One account, one feed, a window of PAGES pages with one bucket each, EPOCHS claims at most. It
 * follows scheduler/claim.c, scheduler/settle.c, scheduler/jobs.c (job_ack, window_verdict),
 * writer/batch.c (fence, replace) and writer/writer.c (acknowledge after COMMIT); README.md tells
 * what is left out and why that changes nothing.
 *
 * Each process is one loop of guarded steps: one atomic step is one transaction, or one message.
 * Any of them may crash between any two steps, and starts again with empty memory.
 *
 * Mutants take one mechanism out each, and then some property must fail:
 *   -DMUTANT_NO_FENCE            the writer does not compare the page's epoch
 *   -DMUTANT_NO_LOCK             it does, but does not hold the account's row until its COMMIT
 *   -DMUTANT_ACK_BEFORE_COMMIT   it acknowledges what it is about to commit
 *   -DMUTANT_NO_EPOCH_IN_SETTLE  the scheduler settles a job whose account has a newer epoch
 *   -DMUTANT_ANY_ACK             it counts acknowledged pages, and does not look for gaps
 *   -DMUTANT_NO_EXPIRY           with -DLIVE: a lease ends only when its job is settled
 *
 * -DLIVE allows TROUBLES crashes, losses and repeats, and leases that run out early; it checks that
 * every run ends with every page committed. */

#ifndef PAGES
#define PAGES 2
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#ifndef TROUBLES
#define TROUBLES 2
#endif

#ifdef LIVE
byte troubles = TROUBLES;
#define TROUBLE       (troubles > 0)
#define COUNT_TROUBLE troubles--
#else
#define TROUBLE       true
#define COUNT_TROUBLE skip
#endif

/* ---- what survives a crash: rows in Postgres ---- */

byte lease_epoch = 0;  /* accounts.lease_epoch */
bool leased = false;   /* accounts.next_due lies in the future, because of a lease */
byte locked_by = 0;    /* the account's row lock: a writer's number + 1; 0 = free */
byte watermark = 0;    /* account_feeds.watermark: pages [0, watermark) are said to be complete */
byte stored[PAGES] = 0; /* usage_metrics: which observation of the bucket it has; 0 = none */

/* ---- what is watched, and no program knows ---- */

bool standing = false;             /* a lease that neither ran out nor was settled by its own job */
byte readings[PAGES] = 0;          /* how often the provider was asked for this page */
byte seen[EPOCHS * PAGES] = 0;     /* which of these readings a page is: larger is newer */

/* ---- what a crash loses ---- */

#define PAGE(epoch, seq)  (((epoch) - 1) * PAGES + (seq)) /* an epoch's fetcher reads a page once */
#define EPOCH_OF(page)    ((page) / PAGES + 1)
#define SEQ_OF(page)      ((page) % PAGES)

short network = 0; /* pages on their way, a bit each: none is before another */

typedef scheduler_memory {
    byte epoch; /* of the job that is out; 0 = none */
    byte from;  /* the page that its window begins with */
    byte acked  /* a bit for each page that is acknowledged as committed */
};
scheduler_memory sched[2];

typedef fetcher_memory {
    byte epoch; /* of the job in hand; 0 = none */
    byte seq    /* the next page */
};
fetcher_memory fetcher[2];

#define EMPTY     0
#define HELD      1 /* a page waits in the open batch */
#define FENCED_OK 2 /* in the transaction: its epoch is the account's */
#define COMMITTED 3 /* still to be acknowledged */
typedef writer_memory {
    byte stage;
    byte page
};
writer_memory writer[2];

/* ---- properties ---- */

#define HAS(bits, n) (((bits) >> (n)) & 1)

/* Nothing lost: what the watermark has passed is in the table. */
inline check_watermark()
{
    n = 0;
    do
    :: n < watermark -> assert(stored[n] > 0); n++
    :: else -> break
    od
}

/* ---- scheduler ---- */

/* Nothing more will come of this epoch's job: what its lease's end is for. */
#define NOTHING_LEFT(e)                                                                            \
    (fetcher[0].epoch != (e) && fetcher[1].epoch != (e) &&                                         \
     ((network >> PAGE(e, 0)) & ((1 << PAGES) - 1)) == 0 &&                                        \
     (writer[0].stage == EMPTY || EPOCH_OF(writer[0].page) != (e)) &&                              \
     (writer[1].stage == EMPTY || EPOCH_OF(writer[1].page) != (e)))

#ifdef LIVE
#define ALL_ACKED ((sched[me].acked >> sched[me].from) == (((1 << PAGES) - 1) >> sched[me].from))
#define DUE        (watermark < PAGES)
#define MAY_SETTLE (ALL_ACKED || NOTHING_LEFT(sched[me].epoch))
#else
#define DUE        true /* again and again: lookback, audits, injections */
#define MAY_SETTLE true /* a silent fetcher or a short lease ends a job at any moment */
#endif

#ifdef MUTANT_NO_EPOCH_IN_SETTLE
#define IS_OURS true
#else
#define IS_OURS (sched[me].epoch == lease_epoch)
#endif

/* ledger_claim, and send_job: to some fetcher that has room, or to nobody, or it is lost */
inline claim()
{
    assert(!standing); /* no account is given out twice at once */
    lease_epoch++;
    leased = true;
    standing = true;
    sched[me].epoch = lease_epoch;
    sched[me].acked = 0;
    if
    :: sched[me].from = watermark /* going on where the last reading stopped */
    :: sched[me].from = 0         /* looking back */
    fi;
    if
    :: fetcher[0].epoch == 0 -> fetcher[0].epoch = lease_epoch; fetcher[0].seq = sched[me].from
    :: fetcher[1].epoch == 0 -> fetcher[1].epoch = lease_epoch; fetcher[1].seq = sched[me].from
    :: TROUBLE -> COUNT_TROUBLE
    fi;
    if
    :: sched[me].from == PAGES -> fetcher[0].epoch = (fetcher[0].epoch == lease_epoch -> 0 : fetcher[0].epoch);
                                  fetcher[1].epoch = (fetcher[1].epoch == lease_epoch -> 0 : fetcher[1].epoch)
    :: else -> skip
    fi
}

/* ledger_settle with window_verdict: committed without a gap, from the window's start on */
inline settle()
{
    if
    :: IS_OURS ->
        n = sched[me].from;
        do
#ifdef MUTANT_ANY_ACK
        :: n < PAGES && (sched[me].acked >> n) != 0 -> n++
#else
        :: n < PAGES && HAS(sched[me].acked, n) -> n++
#endif
        :: else -> break
        od;
        watermark = (n > watermark -> n : watermark);
        check_watermark();
        leased = false;
        standing = (sched[me].epoch == lease_epoch -> false : standing)
    :: else -> skip /* lease.lost: another's by now */
    fi;
    n = 0;
    if
    :: sched[me].epoch = 0; sched[me].acked = 0; sched[me].from = 0
    :: TROUBLE -> COUNT_TROUBLE /* COMMIT's answer was lost: it settles once more */
    fi
}

proctype Scheduler(byte me)
{
    byte n;

end:
    do
    :: atomic { sched[me].epoch == 0 && !leased && locked_by == 0 && DUE && lease_epoch < EPOCHS ->
                claim() }
    :: atomic { sched[me].epoch != 0 && locked_by == 0 && MAY_SETTLE -> settle() }
    :: atomic { sched[me].epoch != 0 && TROUBLE -> COUNT_TROUBLE; /* crash */
                sched[me].epoch = 0; sched[me].acked = 0; sched[me].from = 0 }
    od
}

/* A lease runs out: by the clock, whoever still works under it. */
proctype Clock()
{
end:
    do
#ifdef LIVE
    :: atomic { leased && TROUBLE -> COUNT_TROUBLE; leased = false; standing = false }
#ifndef MUTANT_NO_EXPIRY
    :: atomic { leased && NOTHING_LEFT(lease_epoch) && sched[0].epoch != lease_epoch &&
                sched[1].epoch != lease_epoch -> /* a scheduler gives up a moment before */
                leased = false; standing = false }
#endif
#else
    :: atomic { leased -> leased = false; standing = false }
#endif
    od
}

/* ---- fetcher: page after page; it is not told that its lease ran out ---- */

proctype Fetcher(byte me)
{
    byte p;

end:
    do
    :: atomic { fetcher[me].epoch != 0 ->
                p = PAGE(fetcher[me].epoch, fetcher[me].seq);
                readings[fetcher[me].seq]++;
                seen[p] = readings[fetcher[me].seq];
                network = network | (1 << p);
                fetcher[me].seq++;
                if
                :: fetcher[me].seq == PAGES -> fetcher[me].epoch = 0; fetcher[me].seq = 0
                :: else -> skip
                fi;
                p = 0 }
    :: atomic { fetcher[me].epoch != 0 && TROUBLE -> COUNT_TROUBLE; /* crash */
                fetcher[me].epoch = 0; fetcher[me].seq = 0 }
    od
}

/* ---- network, with the normalizers in it: a page is lost, or comes late, twice, in any order ---- */

#define LOSE(p)                                                                                    \
    atomic { (p) < EPOCHS * PAGES && HAS(network, p) && TROUBLE -> COUNT_TROUBLE;                  \
             network = network & ~(1 << (p)) }

proctype Network()
{
end:
    do
    :: LOSE(0) :: LOSE(1) :: LOSE(2) :: LOSE(3) :: LOSE(4) :: LOSE(5) :: LOSE(6) :: LOSE(7)
    od
}

/* ---- writer ---- */

#define TAKE(p)                                                                                    \
    atomic { (p) < EPOCHS * PAGES && writer[me].stage == EMPTY && HAS(network, p) ->               \
             writer[me].stage = HELD; writer[me].page = (p);                                       \
             if                                                                                    \
             :: network = network & ~(1 << (p))                                                    \
             :: TROUBLE -> COUNT_TROUBLE /* it comes once more */                                  \
             fi }

/* job_ack: for the job of that epoch only, a second word on a page changes nothing */
inline ack()
{
    n = writer[me].page;
    if
    :: sched[0].epoch == EPOCH_OF(n) -> sched[0].acked = sched[0].acked | (1 << SEQ_OF(n))
    :: sched[1].epoch == EPOCH_OF(n) -> sched[1].acked = sched[1].acked | (1 << SEQ_OF(n))
    :: else -> skip /* settled, or of an earlier life */
    fi;
    n = 0
}

#ifdef MUTANT_NO_FENCE
#define IS_LIVE true
#else
#define IS_LIVE (EPOCH_OF(writer[me].page) == lease_epoch)
#endif

/* the first statement of the transaction: SELECT lease_epoch ... FOR NO KEY UPDATE */
inline fence()
{
    if
    :: IS_LIVE ->
        writer[me].stage = FENCED_OK;
#ifndef MUTANT_NO_LOCK
        locked_by = me + 1;
#endif
#ifdef MUTANT_ACK_BEFORE_COMMIT
        ack()
#else
        skip
#endif
    :: else -> writer[me].stage = EMPTY; writer[me].page = 0 /* fenced: moves no watermark */
    fi
}

inline commit()
{
    /* Newest observation wins: a reading never takes the place of a later one. */
    assert(seen[writer[me].page] >= stored[SEQ_OF(writer[me].page)]);
    stored[SEQ_OF(writer[me].page)] = seen[writer[me].page];
    locked_by = 0;
    if
    :: writer[me].stage = COMMITTED
    :: TROUBLE -> COUNT_TROUBLE; writer[me].stage = HELD /* answer lost: the whole batch again */
    fi
}

proctype Writer(byte me)
{
    byte n;

end:
    do
    :: TAKE(0) :: TAKE(1) :: TAKE(2) :: TAKE(3) :: TAKE(4) :: TAKE(5) :: TAKE(6) :: TAKE(7)
    :: atomic { writer[me].stage == HELD && locked_by == 0 -> fence() }
    :: atomic { writer[me].stage == FENCED_OK -> commit() }
    :: atomic { writer[me].stage == COMMITTED ->
                if
                :: ack()
                :: TROUBLE -> COUNT_TROUBLE /* the ack is lost */
                fi;
                writer[me].stage = EMPTY; writer[me].page = 0 }
    :: atomic { writer[me].stage != EMPTY && TROUBLE -> COUNT_TROUBLE; /* crash: a rollback */
                locked_by = (locked_by == me + 1 -> 0 : locked_by);
                writer[me].stage = EMPTY; writer[me].page = 0 }
    od
}

#ifdef LIVE
/* Nothing can happen any more: then nothing is owed. */
proctype Everything()
{
    timeout -> assert(watermark == PAGES && stored[0] > 0 && stored[PAGES - 1] > 0)
}
#endif

init
{
    atomic {
        run Scheduler(0); run Scheduler(1); run Clock();
        run Fetcher(0); run Fetcher(1); run Network();
        run Writer(0); run Writer(1);
#ifdef LIVE
        run Everything();
#endif
    }
}
