-------------------------------- MODULE Settle --------------------------------
(* The protocol of docs/protocol/README.md: transactions that share accounts, *)
(* a log that loses what it has not flushed, an owner that may die or stall,  *)
(* a taker that recovers behind a fence, and messages that are lost,          *)
(* duplicated and reordered at will. spec/README.md maps actions to code.     *)
EXTENDS Barrier, FiniteSets

CONSTANTS
  Txs,            \* transactions, numbered 1..n in the order of their birth
  SagaTxs,        \* those of them that run as a saga; the others are two-phase
  Participants,   \* each keeps one account; every transaction wants one unit of each
  Funds,          \* units credited to each account
  SharedLog,      \* FALSE: log and owner die together. TRUE: either may die alone, a stalled owner is taken over
  OwnerMayDie,    \* the owner's process may die at any moment; a later one recovers
  MaxLogCrashes,  \* how often the log may lose its unflushed end
  Impatient,      \* TRUE: deadlines pass, and prepared branches ask the log, while the owner is alive and well
  Floors,         \* TRUE: participants forget final branches
  Bug             \* "None", or a rule to break: the checker must then find the harm

VARIABLES
  owner,          \* transaction -> where the instance that began it stands
  log,            \* transaction -> its record as it can be read
  durable,        \* transaction -> its record as a crash of the log would leave it
  fence,          \* the taker's raised epoch: "Down", "Readable" or "Durable"
  logCrashes,     \* crashes of the log so far
  sent,           \* transaction -> messages ever sent; each may arrive at every participant any number of times, or never
  votes,          \* transaction -> participant -> votes on their way to the owner, "yes" and "no"
  inquiry,        \* transaction -> participant -> answers to Inquire, "yes" and "no"
  branch,         \* transaction -> participant -> barrier state
  available, held, settled,   \* participant -> units
  floor,          \* participant -> the youngest transaction that it may have forgotten
  answer          \* transaction -> what the client was told

vars == <<owner, log, durable, fence, logCrashes, sent, votes, inquiry, branch,
          available, held, settled, floor, answer>>

LogVars  == <<log, durable, fence, logCrashes>>
BarrierVars == <<votes, inquiry, branch, available, held, settled, floor>>

OwnerStates  == {"New", "Running", "Commit", "Abort", "Fenced", "Withdrawn", "Closed", "Dead"}
Records      == {"None", "Tombstone", "Staged", "Commit", "Abort", "CommitFinished", "AbortFinished"}
ToCommit     == {"Commit", "CommitFinished"}
ToAbort      == {"Abort", "AbortFinished", "Tombstone"}
Final        == {"Committed", "Aborted", "Compensated"}

IsSaga(t)    == t \in SagaTxs
Yes(t)       == IF IsSaga(t) THEN "Executed" ELSE "Prepared"
Forward(t)   == IF IsSaga(t) THEN "Execute" ELSE "Prepare"
Undo(t)      == IF IsSaga(t) THEN "Compensate" ELSE "Abort"
Undone       == {"Aborted", "Compensated"}

Send(t, messages) == sent' = [sent EXCEPT ![t] = @ \cup messages]

Init ==
  /\ owner = [t \in Txs |-> "New"]
  /\ log = [t \in Txs |-> "None"]
  /\ durable = [t \in Txs |-> "None"]
  /\ fence = "Down"
  /\ logCrashes = 0
  /\ sent = [t \in Txs |-> {}]
  /\ votes = [t \in Txs |-> [p \in Participants |-> {}]]
  /\ inquiry = [t \in Txs |-> [p \in Participants |-> {}]]
  /\ branch = [t \in Txs |-> [p \in Participants |-> "None"]]
  /\ available = [p \in Participants |-> Funds]
  /\ held = [p \in Participants |-> 0]
  /\ settled = [p \in Participants |-> 0]
  /\ floor = [p \in Participants |-> 0]
  /\ answer = [t \in Txs |-> "None"]

-----------------------------------------------------------------------------
(* A forgotten branch has no record; this specification keeps its last state  *)
(* to compare the books with the decision, but no participant looks at it.    *)
Forgotten(t, p) == t <= floor[p] /\ branch[t][p] \in (Final \cup {"None", "Executed"})

(* The log. Whoever is not the owner reads durable records only: a record     *)
(* that a crash can take back is nobody's reason to act.                      *)

RecordFor(t) == IF Bug = "TakerReadsUnflushed" THEN log[t] ELSE durable[t]

Flush ==
  /\ durable # log \/ fence = "Readable"
  /\ durable' = log
  /\ fence' = IF fence = "Readable" THEN "Durable" ELSE fence
  /\ UNCHANGED <<owner, log, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

LogCrash ==
  /\ SharedLog
  /\ logCrashes < MaxLogCrashes
  /\ durable # log \/ fence = "Readable"
  /\ logCrashes' = logCrashes + 1
  /\ log' = durable
  /\ fence' = IF fence = "Readable" THEN "Down" ELSE fence
  /\ UNCHANGED <<owner, durable, sent, answer>>
  /\ UNCHANGED BarrierVars

(* Insert if absent. With a shared log the request may arrive late, or twice. *)
Stage(t) ==
  /\ "Stage" \in sent[t]
  /\ SharedLog \/ owner[t] = "Running"
  /\ fence = "Down"
  /\ log[t] = "None"
  /\ log' = [log EXCEPT ![t] = "Staged"]
  /\ UNCHANGED <<owner, durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

MayAsk(t) ==
  /\ ~IsSaga(t)
  /\ Impatient \/ owner[t] = "Dead"
  /\ \E p \in Participants : branch[t][p] = "Prepared"

(* A prepared branch asks about a transaction that the log never saw.         *)
Bury(t) ==
  /\ MayAsk(t)
  /\ log[t] = "None"
  /\ log' = [log EXCEPT ![t] = "Tombstone"]
  /\ UNCHANGED <<owner, durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

(* The log's answer to a prepared branch that asked.                          *)
AnswerBranch(t) ==
  /\ MayAsk(t)
  /\ LET record == IF Bug = "LogAnswersUnflushed" THEN log[t] ELSE durable[t] IN
       \/ record \in ToCommit /\ "Commit" \notin sent[t] /\ Send(t, {"Commit"})
       \/ record \in ToAbort /\ "Abort" \notin sent[t] /\ Send(t, {"Abort"})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

-----------------------------------------------------------------------------
(* The owner. It runs in an application, decides, and answers the client.     *)

Said(t, vote, p) == vote \in votes[t][p]
Refused(t) == \E p \in Participants : Said(t, "no", p)

(* A two-phase abort is irrevocable when recovery could find nothing else.    *)
(* A saga's always is: recovery of an undecided saga is to abort.             *)
Irrevocable(t) == durable[t] \in ToAbort \/ Refused(t)

(* Votes are dropped once nobody looks at them: it keeps the states few.      *)
Forget(t, kept) == votes' = [votes EXCEPT ![t] = [p \in Participants |-> votes[t][p] \cap kept]]
BarrierButVotes == <<inquiry, branch, available, held, settled, floor>>

Begin(t) ==
  /\ owner[t] = "New"
  /\ owner' = [owner EXCEPT ![t] = "Running"]
  /\ Send(t, IF IsSaga(t) THEN {"Stage"} ELSE {"Stage", Forward(t)})
  /\ UNCHANGED answer
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

SagaExecutes(t) ==
  /\ IsSaga(t)
  /\ owner[t] = "Running"
  /\ durable[t] # "None"
  /\ "Execute" \notin sent[t]
  /\ Send(t, {"Execute"})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

(* All said yes behind a durable Stage. Decide by compare-and-set; if another *)
(* decided first, its decision is ours.                                       *)
DecideCommit(t) ==
  /\ owner[t] = "Running"
  /\ durable[t] # "None"
  /\ log[t] # "None"
  /\ \A p \in Participants : Said(t, "yes", p)
  /\ IF fence # "Down"
       THEN owner' = [owner EXCEPT ![t] = "Fenced"] /\ UNCHANGED log
       ELSE IF log[t] \in ToAbort
         THEN owner' = [owner EXCEPT ![t] = "Abort"] /\ UNCHANGED log
         ELSE /\ owner' = [owner EXCEPT ![t] = "Commit"]
              /\ log' = IF log[t] = "Staged" THEN [log EXCEPT ![t] = "Commit"] ELSE log
  /\ Forget(t, {"no"})
  /\ UNCHANGED <<durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierButVotes

(* One said no, or the deadline passed (it may pass at any time). A record    *)
(* that is not there is decided by a tombstone.                               *)
DecideAbort(t) ==
  /\ owner[t] = "Running"
  /\ Impatient \/ Refused(t)
  /\ IF fence # "Down"
       THEN owner' = [owner EXCEPT ![t] = "Fenced"] /\ UNCHANGED log
       ELSE IF log[t] \in ToCommit
         THEN owner' = [owner EXCEPT ![t] = "Commit"] /\ UNCHANGED log
         ELSE /\ owner' = [owner EXCEPT ![t] = "Abort"]
              /\ log' = CASE log[t] = "None"   -> [log EXCEPT ![t] = "Tombstone"]
                          [] log[t] = "Staged" -> [log EXCEPT ![t] = "Abort"]
                          [] OTHER             -> log
  /\ Forget(t, {"no"})
  /\ UNCHANGED <<durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierButVotes

(* The log refused Stage because of a durable tombstone. A refusal because of *)
(* the fence proves nothing: an earlier attempt may have been staged.         *)
Withdraw(t) ==
  /\ owner[t] = "Running"
  /\ durable[t] = "Tombstone" \/ (Bug = "WithdrawWhenFenced" /\ fence # "Down")
  /\ owner' = [owner EXCEPT ![t] = "Withdrawn"]
  /\ Send(t, {Undo(t)})
  /\ answer' = [answer EXCEPT ![t] = "RolledBack"]
  /\ Forget(t, {})
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierButVotes

AnswerCommit(t) ==
  /\ answer[t] = "None"
  /\ \/ /\ owner[t] = "Commit"
        /\ \/ ~IsSaga(t) /\ durable[t] # "None"
           \/ durable[t] \in ToCommit
           \/ IsSaga(t) /\ Bug = "SagaAnswersBeforeDurable"
     \/ owner[t] = "Fenced" /\ RecordFor(t) \in ToCommit
  /\ answer' = [answer EXCEPT ![t] = "Ok"]
  /\ UNCHANGED <<owner, sent>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

SendCommit(t) ==
  /\ ~IsSaga(t)
  /\ owner[t] = "Commit"
  /\ durable[t] \in ToCommit \/ Bug = "CommitBeforeDurable"
  /\ "Commit" \notin sent[t]
  /\ Send(t, {"Commit"})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

SendUndo(t) ==
  /\ owner[t] = "Abort"
  /\ IsSaga(t) \/ Irrevocable(t) \/ Bug = "AbortBeforeIrrevocable"
  /\ Undo(t) \notin sent[t]
  /\ Send(t, {Undo(t)})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

(* The wait for acknowledgements is bounded, so the answer may come any time. *)
AnswerAbort(t) ==
  /\ answer[t] = "None"
  /\ \/ owner[t] = "Abort" /\ (IsSaga(t) \/ Irrevocable(t) \/ Bug = "AnswerAbortBeforeIrrevocable")
     \/ owner[t] = "Fenced" /\ RecordFor(t) \in ToAbort
  /\ answer' = [answer EXCEPT ![t] = "RolledBack"]
  /\ UNCHANGED <<owner, sent>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

(* Acknowledged: what was acknowledged is final or forgotten, so reading the  *)
(* state is the same as having received the acknowledgement.                  *)
CommitAcknowledged(t) ==
  IsSaga(t) \/ \A p \in Participants : branch[t][p] = "Committed" \/ Forgotten(t, p)
UndoAcknowledged(t) ==
  /\ Undo(t) \in sent[t]
  /\ \A p \in Participants :
       branch[t][p] \in Undone \/ Forgotten(t, p)

Finished(t) ==
  CASE durable[t] = "Commit" /\ CommitAcknowledged(t) -> "CommitFinished"
    [] durable[t] = "Abort" /\ UndoAcknowledged(t)    -> "AbortFinished"
    [] OTHER                                          -> durable[t]

Finish(t) ==
  /\ owner[t] \in {"Commit", "Abort"}
  /\ answer[t] # "None"
  /\ fence = "Down"
  /\ log[t] = durable[t]
  /\ \/ Finished(t) # durable[t]
     \/ durable[t] \in {"CommitFinished", "AbortFinished"}
     \/ durable[t] = "Tombstone" /\ UndoAcknowledged(t)
  /\ log' = [log EXCEPT ![t] = Finished(t)]
  /\ owner' = [owner EXCEPT ![t] = "Closed"]
  /\ Forget(t, {})
  /\ UNCHANGED <<durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierButVotes

(* The owner's process dies, and an embedded log with it.                     *)
OwnerDies ==
  /\ OwnerMayDie
  /\ \E t \in Txs : owner[t] # "Dead"
  /\ owner' = [t \in Txs |-> "Dead"]
  /\ votes' = [t \in Txs |-> [p \in Participants |-> {}]]
  /\ IF SharedLog
       THEN UNCHANGED <<log, fence>>
       ELSE log' = durable /\ fence' = (IF fence = "Readable" THEN "Down" ELSE fence)
  /\ UNCHANGED <<durable, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierButVotes

-----------------------------------------------------------------------------
(* The taker: a planner over the log's records without a memory of its own,   *)
(* so its crashes need no action. Two takers at once are the same as one.     *)

RaiseFence ==
  /\ fence = "Down"
  /\ SharedLog \/ \A t \in Txs : owner[t] = "Dead"
  /\ \E t \in Txs : owner[t] # "New"
  /\ fence' = "Readable"
  /\ UNCHANGED <<owner, log, durable, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

InOffice == fence = "Durable" \/ (fence = "Readable" /\ Bug = "FenceUnflushed")

TakerInquires(t) ==
  /\ InOffice
  /\ ~IsSaga(t)
  /\ RecordFor(t) = "Staged"
  /\ "Inquire" \notin sent[t]
  /\ Send(t, {"Inquire"})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

TakerDecides(t) ==
  /\ InOffice
  /\ RecordFor(t) = "Staged"
  /\ log[t] = "Staged"
  /\ \/ /\ ~IsSaga(t)
        /\ \A p \in Participants : "yes" \in inquiry[t][p]
        /\ log' = [log EXCEPT ![t] = "Commit"]
     \/ /\ IsSaga(t) \/ \E p \in Participants : "no" \in inquiry[t][p]
        /\ log' = [log EXCEPT ![t] = "Abort"]
  /\ UNCHANGED <<owner, durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

(* A poisoned branch makes an abort irrevocable as a refusal does.            *)
TakersAbortStands(t) ==
  \/ RecordFor(t) = "Abort"
  \/ IsSaga(t)
  \/ \E p \in Participants : "no" \in inquiry[t][p]

TakerSends(t) ==
  /\ InOffice
  /\ \/ ~IsSaga(t) /\ RecordFor(t) = "Commit" /\ "Commit" \notin sent[t] /\ Send(t, {"Commit"})
     \/ log[t] = "Abort" /\ TakersAbortStands(t) /\ Undo(t) \notin sent[t] /\ Send(t, {Undo(t)})
  /\ UNCHANGED <<owner, answer>>
  /\ UNCHANGED LogVars
  /\ UNCHANGED BarrierVars

TakerFinishes(t) ==
  /\ InOffice
  /\ log[t] = durable[t]
  /\ Finished(t) # durable[t]
  /\ log' = [log EXCEPT ![t] = Finished(t)]
  /\ UNCHANGED <<owner, durable, fence, logCrashes, sent, answer>>
  /\ UNCHANGED BarrierVars

-----------------------------------------------------------------------------
(* The participants.                                                          *)

Outcome(t, p, command) ==
  LET state == branch[t][p]
      enough == available[p] > 0
  IN IF Forgotten(t, p) THEN <<state, ForgottenReply(command)>>
     ELSE IF Bug = "PredicateBeforeBarrier" /\ command \in {"Prepare", "Execute"} /\ state = Yes(t) /\ ~enough
       THEN <<state, "Refused">>
     ELSE IF Bug = "SkipPoison" /\ command = "Inquire" /\ state = "None"
       THEN <<"None", "Aborted">>
     ELSE React(state, command, enough)

(* Only the owner that still votes hears a vote, only the taker an inquiry.   *)
(* "Refused" by a branch that is forgotten is no vote: it may be forgotten    *)
(* because it was committed behind a slow owner's back.                       *)
NewVotes(t, p, command, reply) ==
  IF command # Forward(t) THEN {}
  ELSE IF Forgotten(t, p) /\ Bug # "ExpiredIsRefusal" THEN {}
  ELSE IF reply = Yes(t) /\ owner[t] = "Running" THEN {"yes"}
  ELSE IF reply = "Refused" /\ owner[t] \in {"Running", "Abort"} THEN {"no"}
  ELSE {}

NewInquiry(t, command, reply) ==
  IF command # "Inquire" THEN {}
  ELSE IF reply \in {"Prepared", "Committed"} THEN {"yes"}
  ELSE IF reply \in Undone THEN {"no"}
  ELSE {}

(* A value bound by \E over one element is computed once by the checker; a    *)
(* LET would be computed at each use.                                         *)
Move(t, p, from, to) ==
  /\ branch' = [branch EXCEPT ![t][p] = to]
  /\ available' = [available EXCEPT ![p] = @ - One(Takes(from, to)) + One(Returns(from, to))]
  /\ held' = [held EXCEPT ![p] = @ - One(Holds(from)) + One(Holds(to))]
  /\ settled' = [settled EXCEPT ![p] = @ - One(Settles(from)) + One(Settles(to))]

Changes(t, p, command) ==
  LET outcome == Outcome(t, p, command) IN
    \/ outcome[1] # branch[t][p]
    \/ ~ (NewVotes(t, p, command, outcome[2]) \subseteq votes[t][p])
    \/ ~ (NewInquiry(t, command, outcome[2]) \subseteq inquiry[t][p])

(* A message that changes nothing is no step.                                 *)
Receive(t, p) ==
  \E command \in {c \in sent[t] \cap Commands : Changes(t, p, c)} :
  \E outcome \in {Outcome(t, p, command)} :
    /\ IF outcome[1] = branch[t][p]
         THEN UNCHANGED <<branch, available, held, settled>>
         ELSE Move(t, p, branch[t][p], outcome[1])
    /\ votes' = [votes EXCEPT ![t][p] = @ \cup NewVotes(t, p, command, outcome[2])]
    /\ inquiry' = [inquiry EXCEPT ![t][p] = @ \cup NewInquiry(t, command, outcome[2])]
    /\ UNCHANGED <<owner, sent, answer, floor>>
    /\ UNCHANGED LogVars

(* Never right: it is here to be caught.                                      *)
TimeoutReleases(t, p) ==
  /\ Bug = "TimeoutReleasesPrepared"
  /\ branch[t][p] = "Prepared"
  /\ Move(t, p, "Prepared", "Aborted")
  /\ UNCHANGED <<owner, sent, answer, floor, votes, inquiry>>
  /\ UNCHANGED LogVars

MayForget(t, p) ==
  \/ branch[t][p] \in Final \cup {"None"}
  \/ branch[t][p] = "Executed" /\ (durable[t] \in ToCommit \/ Bug = "ForgetExecutedEarly")

RaiseFloor(p) ==
  /\ Floors
  /\ LET next == floor[p] + 1 IN
       /\ next \in Txs
       /\ owner[next] # "New"
       /\ MayForget(next, p)
       /\ floor' = [floor EXCEPT ![p] = next]
  /\ UNCHANGED <<owner, sent, answer, votes, inquiry, branch, available, held, settled>>
  /\ UNCHANGED LogVars

-----------------------------------------------------------------------------
(* Everything has come to rest as it should. Any other rest is a deadlock,    *)
(* which the checker reports: that is the liveness of this specification.     *)

AtRest(t) ==
  /\ durable[t] = log[t]
  /\ \/ durable[t] \in {"CommitFinished", "AbortFinished"}
     \/ durable[t] \in {"None", "Tombstone"} /\ \A p \in Participants : branch[t][p] \notin {"Prepared", "Executed"}
  /\ owner[t] \in {"Commit", "Abort"} => answer[t] # "None"
  /\ owner[t] = "Fenced" /\ durable[t] # "None" => answer[t] # "None"
  /\ owner[t] # "Running"

Rest == (\A t \in Txs : AtRest(t)) /\ UNCHANGED vars

OfTransaction(t) ==
  \/ Begin(t) \/ Stage(t) \/ SagaExecutes(t)
  \/ DecideCommit(t) \/ DecideAbort(t) \/ Withdraw(t)
  \/ AnswerCommit(t) \/ AnswerAbort(t) \/ SendCommit(t) \/ SendUndo(t) \/ Finish(t)
  \/ Bury(t) \/ AnswerBranch(t)
  \/ TakerInquires(t) \/ TakerDecides(t) \/ TakerSends(t) \/ TakerFinishes(t)

OfParticipant(t, p) ==
  \/ Receive(t, p)
  \/ TimeoutReleases(t, p)

Next ==
  \/ Flush \/ LogCrash \/ OwnerDies \/ RaiseFence
  \/ \E t \in Txs : OfTransaction(t)
  \/ \E t \in Txs : \E p \in Participants : OfParticipant(t, p)
  \/ \E p \in Participants : RaiseFloor(p)
  \/ Rest

Spec == Init /\ [][Next]_vars

(* Something happens as long as something can: the weakest fairness there is. *)
FairSpec == Spec /\ WF_vars(Next)

-----------------------------------------------------------------------------
(* What must hold.                                                            *)

TypeOK ==
  /\ owner \in [Txs -> OwnerStates]
  /\ log \in [Txs -> Records]
  /\ durable \in [Txs -> Records]
  /\ fence \in {"Down", "Readable", "Durable"}
  /\ logCrashes \in 0..MaxLogCrashes
  /\ branch \in [Txs -> [Participants -> BranchStates]]
  /\ answer \in [Txs -> {"None", "Ok", "RolledBack"}]

(* Every unit credited is available, held or settled, and every unit held or  *)
(* settled belongs to a branch.                                               *)
Conservation ==
  \A p \in Participants :
    /\ available[p] >= 0
    /\ available[p] + held[p] + settled[p] = Funds
    /\ held[p] = Cardinality({t \in Txs : Holds(branch[t][p])})
    /\ settled[p] = Cardinality({t \in Txs : Settles(branch[t][p])})

(* A saga may be half done for a while, but not once it is decided and done.  *)
Atomicity ==
  \A t \in Txs :
    /\ ~ \E p, q \in Participants : branch[t][p] = "Committed" /\ branch[t][q] \in Undone
    /\ durable[t] \in {"CommitFinished", "AbortFinished"} =>
         \/ \A p \in Participants : branch[t][p] \in {"Committed", "Executed"}
         \/ \A p \in Participants : branch[t][p] \in Undone \cup {"None"}

NoLostAnswer ==
  \A t \in Txs :
    /\ answer[t] = "Ok" => /\ log[t] \notin ToAbort /\ durable[t] \notin ToAbort \cup {"None"}
                           /\ \A p \in Participants : branch[t][p] \in {"Prepared", "Committed", "Executed"}
    /\ answer[t] = "RolledBack" => /\ log[t] \notin ToCommit /\ durable[t] \notin ToCommit
                                   /\ \A p \in Participants : branch[t][p] # "Committed"

(* What the books say in the end is what the decision says.                   *)
DecisionObeyed ==
  \A t \in Txs : \A p \in Participants :
    /\ branch[t][p] = "Committed" => durable[t] \in ToCommit
    /\ durable[t] = "AbortFinished" => branch[t][p] \in Undone \cup {"None"}
    /\ durable[t] \in ToCommit => branch[t][p] \in {"Prepared", "Committed", "Executed"}

(* No message under way could ever contradict a branch, or need the repair.   *)
NoViolation ==
  \A t \in Txs : \A p \in Participants : \A command \in sent[t] \cap Commands :
    Outcome(t, p, command)[2] \notin {"Violation", "Repaired"}

(* At most one decision: what is durable stays decided.                       *)
DecidedOnce ==
  [][\A t \in Txs : /\ durable[t] \in ToCommit => durable'[t] \in ToCommit
                    /\ durable[t] \in ToAbort => durable'[t] \in ToAbort]_vars

(* The same as no deadlock but Rest, said with time, for small configurations. *)
Finishes == \A t \in Txs : (durable[t] = "Staged") ~> (durable[t] \in {"CommitFinished", "AbortFinished"})
=============================================================================
