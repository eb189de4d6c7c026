------------------------------- MODULE Barrier -------------------------------
(* What a participant remembers of one branch, and what it answers: the table *)
(* "The barrier" of docs/protocol/README.md, row by row (barrier.rs).         *)
(*                                                                            *)
(* A state and the change of the account are one atomic, durable write, and   *)
(* no reply leaves before it. So a crash of a participant is invisible but    *)
(* for messages lost, and losing a message is never receiving it.             *)
EXTENDS Naturals

BranchStates == {"None", "Prepared", "Committed", "Aborted", "Executed", "Compensated"}
Commands     == {"Prepare", "Commit", "Abort", "Execute", "Compensate", "Inquire"}

(* React[1] is the state after the command, React[2] is the reply.            *)
(* enough: the account has the unit that the step wants. It is looked at in   *)
(* the row "None" only: the barrier comes before every business predicate.    *)
React(state, command, enough) ==
  CASE state = "None" ->
         (CASE command = "Prepare"    -> IF enough THEN <<"Prepared", "Prepared">> ELSE <<"Aborted", "Refused">>
            [] command = "Commit"     -> <<"Committed", "Repaired">>
            [] command = "Abort"      -> <<"Aborted", "Aborted">>
            [] command = "Execute"    -> IF enough THEN <<"Executed", "Executed">> ELSE <<"Aborted", "Refused">>
            [] command = "Compensate" -> <<"Compensated", "Compensated">>
            [] command = "Inquire"    -> <<"Aborted", "Aborted">>)
    [] state = "Prepared" ->
         (CASE command = "Prepare"    -> <<"Prepared", "Prepared">>
            [] command = "Commit"     -> <<"Committed", "Committed">>
            [] command = "Abort"      -> <<"Aborted", "Aborted">>
            [] command = "Execute"    -> <<"Prepared", "Violation">>
            [] command = "Compensate" -> <<"Prepared", "Violation">>
            [] command = "Inquire"    -> <<"Prepared", "Prepared">>)
    [] state = "Committed" ->
         (CASE command = "Prepare"    -> <<"Committed", "Prepared">>
            [] command = "Commit"     -> <<"Committed", "Committed">>
            [] command = "Abort"      -> <<"Committed", "Violation">>
            [] command = "Execute"    -> <<"Committed", "Violation">>
            [] command = "Compensate" -> <<"Committed", "Violation">>
            [] command = "Inquire"    -> <<"Committed", "Committed">>)
    [] state = "Aborted" ->
         (CASE command = "Prepare"    -> <<"Aborted", "Refused">>
            [] command = "Commit"     -> <<"Aborted", "Violation">>
            [] command = "Abort"      -> <<"Aborted", "Aborted">>
            [] command = "Execute"    -> <<"Aborted", "Refused">>
            [] command = "Compensate" -> <<"Aborted", "Compensated">>
            [] command = "Inquire"    -> <<"Aborted", "Aborted">>)
    [] state = "Executed" ->
         (CASE command = "Prepare"    -> <<"Executed", "Violation">>
            [] command = "Commit"     -> <<"Executed", "Violation">>
            [] command = "Abort"      -> <<"Executed", "Violation">>
            [] command = "Execute"    -> <<"Executed", "Executed">>
            [] command = "Compensate" -> <<"Compensated", "Compensated">>
            [] command = "Inquire"    -> <<"Executed", "Executed">>)
    [] state = "Compensated" ->
         (CASE command = "Prepare"    -> <<"Compensated", "Refused">>
            [] command = "Commit"     -> <<"Compensated", "Violation">>
            [] command = "Abort"      -> <<"Compensated", "Aborted">>
            [] command = "Execute"    -> <<"Compensated", "Refused">>
            [] command = "Compensate" -> <<"Compensated", "Compensated">>
            [] command = "Inquire"    -> <<"Compensated", "Compensated">>)

(* The row "forgotten": no record is left, and none is written any more.      *)
ForgottenReply(command) ==
  CASE command \in {"Prepare", "Execute"} -> "Refused"
    [] command = "Commit"                 -> "Committed"
    [] command = "Abort"                  -> "Aborted"
    [] command = "Compensate"             -> "Compensated"
    [] command = "Inquire"                -> "Aborted"

(* Every branch moves one unit; these tell where the unit goes.               *)
Takes(from, to)    == from = "None" /\ to \in {"Prepared", "Executed", "Committed"}
Returns(from, to)  == from \in {"Prepared", "Executed"} /\ to \in {"Aborted", "Compensated"}
Holds(state)       == state = "Prepared"
One(condition)     == IF condition THEN 1 ELSE 0
Settles(state)     == state \in {"Committed", "Executed"}
=============================================================================
