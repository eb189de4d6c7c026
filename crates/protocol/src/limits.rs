//! Every maximum of Settle in one place. Nothing is unbounded; the relations between the limits are asserted at compile time.

/// Bytes in a [`Name`](crate::Name).
pub const MAX_NAME_BYTES: usize = 23;
/// Steps in one transaction.
pub const MAX_STEPS: usize = 16;
/// Bytes of one step's payload.
pub const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
/// Bytes of the application's context of a transaction.
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;
/// Bytes of free text: a refusal's detail, an operator's reason.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Entries (accounts touched) in one branch of a ledger.
pub const MAX_ENTRIES: usize = 512;
/// The largest amount, price or balance: every JSON reader holds it exactly.
pub const MAX_AMOUNT: i64 = (1 << 53) - 1;
/// Accounts or orders in one `batch_init`.
pub const MAX_BATCH: u64 = 1_000_000;
/// Lines (different items) of one order.
pub const MAX_ORDER_LINES: usize = 500;
/// Bytes of an idempotency key as a client sends it.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Idempotency keys that a service remembers however old they are. The oldest go first.
pub const KEPT_IDEMPOTENCY_KEYS: usize = 100_000;
/// How long a service remembers an idempotency key beyond those, so that no stranger's keys push one out between a request and its retry. Milliseconds.
pub const IDEMPOTENCY_KEY_MS: u64 = 600_000;
/// Idempotency keys that a service remembers at most: 1,666 new ones a second for as long as that.
pub const MAX_IDEMPOTENCY_KEYS: usize = 1_000_000;

/// Transactions in flight in one instance, before callers queue.
pub const MAX_IN_FLIGHT: usize = 500;
/// Callers that queue behind the transactions in flight; more are refused as overload.
pub const MAX_QUEUED: usize = 5_000;
/// Transactions that one instance drives, those behind their answer included; callers beyond are refused as overload. Where a participant
/// prepares and does not acknowledge commits, answered transactions pile up.
pub const MAX_UNSETTLED: usize = 20_000;
/// How long a caller queues at most. Milliseconds.
pub const QUEUE_DEADLINE_MS: u64 = 2_000;

/// Transactions in the window of the adaptive choice.
pub const POLICY_WINDOW: usize = 100;
/// Abort rate, in percent of the window, from which sagas are used.
pub const POLICY_SAGA_FROM_PERCENT: usize = 10;
/// Abort rate, in percent of the window, from which two-phase commit is used again.
pub const POLICY_TWO_PHASE_UNTIL_PERCENT: usize = 5;

/// Branches in a row that could not be begun, their answers unknown, and so open a breaker.
pub const BREAKER_FAILURES: u32 = 5;
/// How long an open breaker waits before it lets one probe through. Milliseconds.
pub const BREAKER_COOL_DOWN_MS: u64 = 30_000;
/// How long it waits once the participant has answered a command that finishes a branch. Milliseconds. Whoever can be reached again
/// is back about so soon; and a participant that fails only what begins costs one caller in so long the deadline.
pub const BREAKER_SHORT_COOL_DOWN_MS: u64 = 1_000;

/// How long an instance's lease lasts without being renewed. Milliseconds.
pub const LEASE_MS: u64 = 5_000;
/// How long any lease may last, whoever asks for it: one that stands for longer was granted before the log's clock was set back. Milliseconds.
pub const MAX_LEASE_MS: u64 = 10_000;
/// How often a lease is renewed. Milliseconds.
pub const LEASE_RENEWAL_MS: u64 = 1_500;
/// How long an instance reaches no participant before it hands over what it has to one that may. Milliseconds. Longer than its callers wait: whoever lost the
/// participants together with all the others still answers its own.
pub const CUT_OFF_MS: u64 = 7_000;
/// How long it keeps what it has at most, when it has handed over again and again. Milliseconds.
pub const MAX_CUT_OFF_MS: u64 = 10 * 60 * 1000;
/// How far the clock of an instance may be from that of its log before it says so. Milliseconds.
pub const MAX_CLOCK_SKEW_MS: u64 = 2_000;
/// How far behind the youngest transaction that it knows of a shared log's clock may be for an instance to start: its own clock then runs ahead by as
/// much. Beyond, a clock is wrong, and would be carried on. Milliseconds.
pub const MAX_CLOCK_LEAD_MS: u64 = 60_000;

/// How old a prepared branch is before its participant asks the log what became of it. Milliseconds. A coordinator that lives has decided by then, or has
/// given up; one that is gone has been taken over. Whoever asks about one that was not staged has its late stage refused, and so aborts it.
pub const TERMINATION_AGE_MS: u64 = 10_000;
/// How old a prepared branch is for its participant to ask when it is told that a coordinator is gone. Milliseconds. Younger than a lease without its last
/// renewal: whatever that coordinator has begun is older.
pub const ORPHAN_AGE_MS: u64 = 2_000;
/// How old an executed branch is before its participant asks whether it stands. Milliseconds.
pub const EXECUTED_AGE_MS: u64 = 5_000;
/// Branches asked about in one question.
pub const MAX_TERMINATION_BATCH: usize = 10_000;

/// Final branches that a participant remembers however old they are.
pub const KEPT_BRANCHES: usize = 100_000;
/// Finished transactions that a log remembers however old they are.
pub const KEPT_TRANSACTIONS: usize = 100_000;
/// How old a transaction is before its final branches, and itself, may be forgotten beyond those kept. Milliseconds. A message
/// delayed for longer than this finds its transaction expired.
pub const MIN_RETENTION_MS: u64 = 10_000;
/// How long final branches and finished transactions are kept at most. Milliseconds.
pub const RETENTION_MS: u64 = 60 * 60 * 1000;

/// Scripts that wait for a remote database's connection; a command that finds no room is turned away, not done.
pub const MAX_STORE_QUEUE: usize = 10_000;
/// Scripts sent to a remote database at once, with one wait for its replicas behind them.
pub const MAX_STORE_BATCH: usize = 256;
/// Bytes sent to a remote database at once, unless one command alone takes more.
pub const MAX_STORE_BATCH_BYTES: usize = 4 << 20;
/// Commands that one call of a script on a remote database takes: at some 20 µs each, others wait 2 ms for it at most.
pub const MAX_JOINED: usize = 128;
/// Words that those commands have together, unless one alone has more: an order of 500 lines has a thousand.
pub const MAX_JOINED_WORDS: usize = 4_000;
/// Branches or accounts that one script on a remote database handles: others wait while it runs.
pub const MAX_SCRIPT_ITEMS: usize = 500;
/// Replacements of ever fewer accounts that a ledger in a remote database keeps apart; more are turned away.
pub const MAX_SEED_LAYERS: usize = 1_000;
/// Sentinels that are asked for a master.
pub const MAX_SENTINELS: usize = 15;

/// Bytes of one message between services, a question's or an answer's included.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;
/// Commands for one service that go in one message: the participant hands them to its database together.
pub const MAX_COMMANDS_TOGETHER: usize = 64;
/// How long a command waits for company at most, while others for the same service are under way. Milliseconds.
pub const GATHER_COMMANDS_MS: u64 = 4;
/// How long a commit waits at most for a command that somebody waits for, to go in its message. Its own caller was answered before it was sent. Milliseconds.
pub const GATHER_COMMITS_MS: u64 = 10;
/// How long what is finished waits for more of it, before a log that several processes share is told. Milliseconds.
pub const GATHER_FINISHED_MS: u64 = 50;
/// So many finished transactions do not wait.
pub const MAX_FINISHED_TOGETHER: usize = 256;
/// Addresses of message servers that a process is given.
pub const MAX_NATS_SERVERS: usize = 15;
/// Commands and questions of one process that wait for an answer; one more is unknown at once.
pub const MAX_PENDING: usize = 65_536;
/// Commands of one process that wait to be sent; one more is unknown at once.
pub const MAX_SEND_QUEUE: usize = 16_384;
/// Commands, or questions, that one process works on at once for others.
pub const MAX_HANDLED: usize = 16_384;
/// Undecodable messages that the message servers keep for people to look at; the oldest go first.
pub const KEPT_DEAD_MESSAGES: usize = 10_000;
/// Bytes of those.
pub const KEPT_DEAD_MESSAGE_BYTES: usize = 256 << 20;

/// Owners before the present one that a transaction's record names.
pub const MAX_HANDOVERS: usize = 16;
/// Entries of the operators' trail that are kept: who did what to which transaction. The oldest go first.
pub const KEPT_TRAIL: usize = 10_000;
/// Accounts, orders or transactions that the continuous audit looks at in one question: others wait meanwhile.
pub const MAX_AUDIT_PAGE: usize = 100;
/// Branches that may be open in a ledger in memory for the continuous audit to hold accounts against all of them, at one moment. While there are
/// more, it does so later.
pub const MAX_AUDIT_OPEN: usize = 2_000;
/// The same in a remote database, where a branch takes some 3 µs.
pub const MAX_AUDIT_OPEN_REMOTE: usize = 300;
/// Entries that those branches may have together, for each branch that may be open.
pub const MAX_AUDIT_ENTRIES_EACH: usize = 4;
/// Accounts that the continuous audit looks at twice in one pass, because their sums differed in the pass before. Others wait for a later pass.
pub const MAX_AUDIT_SUSPECTS: usize = 500;
/// Accounts whose sums the continuous audit keeps in one pass. Where there are more, each pass takes a part of them.
pub const MAX_AUDIT_SUMS: usize = 1_000_000;
/// Orders of suspects that it counts in one pass, each once.
pub const MAX_AUDIT_COUNTED: usize = 1_000_000;
/// Findings that the continuous audit keeps; there is trouble enough then.
pub const MAX_AUDIT_FINDINGS: usize = 1_000;
/// Findings shown in one answer.
pub const SHOWN_FINDINGS: usize = 100;
/// Transactions named for one finding.
pub const MAX_AUDIT_NAMED: usize = 10;
/// Spans of one process that wait to be exported; one more is dropped and counted.
pub const MAX_QUEUED_SPANS: usize = 8_192;
/// Spans that are exported together.
pub const MAX_SPANS_TOGETHER: usize = 512;
/// What is noted of one transaction for its trace: enough for the most steps, each tried a few times. What goes on after that is counted.
pub const MAX_NOTES: usize = 256;
/// Transactions of which a participant keeps spans until it is known whether anybody wants them; the oldest are forgotten.
pub const KEPT_TRACES: usize = 4_096;
/// Spans that it keeps of each of them.
pub const KEPT_SPANS: usize = 8;
/// Transactions of which an instance remembers that their traces were sent on; of the oldest it is no longer known.
pub const REMEMBERED_TRACES: usize = 4_096;
/// Bytes of a client's `tracestate` that is passed on; the W3C asks for at least so many. A longer one is left out.
pub const MAX_TRACE_STATE_BYTES: usize = 512;
/// Bytes of a filter for the log.
pub const MAX_LOG_FILTER_BYTES: usize = 1_000;

/// Dead letters shown in one answer.
pub const SHOWN_DEAD_LETTERS: usize = 10;
/// Transactions listed in one answer.
pub const MAX_PAGE: usize = 1_000;

const _: () = {
    assert!(MAX_STEPS <= u8::MAX as usize, "a step's position is one byte");
    assert!(MAX_NAME_BYTES < u8::MAX as usize, "a name's length is one byte");
    assert!(POLICY_TWO_PHASE_UNTIL_PERCENT < POLICY_SAGA_FROM_PERCENT, "the choice must not flap");
    assert!(BREAKER_SHORT_COOL_DOWN_MS < BREAKER_COOL_DOWN_MS);
    assert!(2 * LEASE_RENEWAL_MS < LEASE_MS, "one lost renewal must not lose the lease");
    assert!(
        LEASE_MS + 2 * MAX_CLOCK_SKEW_MS < MAX_LEASE_MS,
        "where instances go by their own clocks, one that is late does not cut the leases of others"
    );
    assert!(2 * MAX_IN_FLIGHT < MAX_UNSETTLED, "what is answered and not settled leaves room for what is in flight");
    assert!(MIN_RETENTION_MS < RETENTION_MS);
    assert!(
        MAX_CLOCK_SKEW_MS < MIN_RETENTION_MS,
        "an instance has said that its clock is wrong before anything is forgotten too early"
    );
    assert!(QUEUE_DEADLINE_MS < MIN_RETENTION_MS, "a queued transaction must not expire before it starts");
    assert!(EXECUTED_AGE_MS <= TERMINATION_AGE_MS);
    assert!(
        LEASE_MS + LEASE_RENEWAL_MS < TERMINATION_AGE_MS,
        "a coordinator that is gone is taken over before anybody asks"
    );
    assert!(
        ORPHAN_AGE_MS + LEASE_RENEWAL_MS < LEASE_MS,
        "what was begun before the last renewal is an orphan when the lease lapses"
    );
    assert!(MAX_AMOUNT as i128 * MAX_BATCH as i128 <= i128::MAX / 2, "sums over all accounts are taken in 128 bits");
    assert!(MAX_ORDER_LINES <= MAX_ENTRIES, "every order fits in a branch");
    assert!(MAX_STORE_BATCH < MAX_STORE_QUEUE && MAX_TERMINATION_BATCH.div_ceil(MAX_SCRIPT_ITEMS) < MAX_STORE_QUEUE);
    assert!(MAX_PAYLOAD_BYTES + 1024 <= MAX_MESSAGE_BYTES, "every command fits in a message");
    assert!(MAX_TERMINATION_BATCH * 48 <= MAX_MESSAGE_BYTES, "so does a question about that many transactions");
    assert!(
        MAX_AUDIT_PAGE <= MAX_SCRIPT_ITEMS && MAX_AUDIT_OPEN_REMOTE <= MAX_SCRIPT_ITEMS,
        "an audit holds up nobody for longer than others do"
    );
    assert!(SHOWN_FINDINGS <= MAX_AUDIT_FINDINGS && MAX_AUDIT_NAMED * SHOWN_FINDINGS * 256 <= MAX_MESSAGE_BYTES);
    assert!(MAX_AUDIT_PAGE * MAX_ORDER_LINES * 8 <= MAX_MESSAGE_BYTES);
    assert!(MAX_SPANS_TOGETHER <= MAX_QUEUED_SPANS && MAX_STEPS * 4 <= MAX_NOTES);
    assert!(MAX_SEND_QUEUE <= MAX_PENDING, "whatever is sent waits for its answer");
    assert!(GATHER_COMMANDS_MS <= GATHER_COMMITS_MS, "what nobody waits for does not go before what somebody does");
    assert!(GATHER_COMMITS_MS + GATHER_FINISHED_MS < 100, "far within the shortest time-out that a transport may have");
    assert!(MAX_FINISHED_TOGETHER <= MAX_SCRIPT_ITEMS, "one script carries them out");
    assert!(MAX_ENTRIES * 32 <= MAX_PAYLOAD_BYTES, "every branch fits in a payload");
    assert!(MAX_PAGE <= KEPT_TRAIL, "a page of the trail is there to be shown");
};
