//! What must always be true, one rule a file.
//!
//! | file                | rule                                                                        | checked                  |
//! |---------------------|-----------------------------------------------------------------------------|--------------------------|
//! | [`conservation`]    | nothing appears, nothing vanishes, nothing is held by nobody                | after every command      |
//! | [`alarms`]          | no branch contradicts a command, nothing has to be repaired                 | after every command      |
//! | [`atomicity`]       | every branch follows the decision, and only a durable one                   | every step, and at rest  |
//! | [`one_decision`]    | what is durably decided, or told as decided, never changes                  | every flush and answer   |
//! | [`no_lost_answer`]  | what a client was told stays true                                           | every answer, at rest    |
//! | [`no_double_charge`]| an order is paid once, and what is paid is what it cost                     | every flush, at rest     |
//! | [`order_state`]     | an order is paid if and only if its transaction is decided Commit           | after every command      |
//! | [`by_hand`]         | what an operator has settled by hand is never forgotten                     | every time the log forgets |
//! | [`idempotency`]     | a request under a key takes effect once, and is answered the same           | every flush and answer   |
//! | [`replaced`]        | `batch_init` replaces nothing that is held or claimed                       | every `batch_init`       |
//! | [`fencing`]         | nothing changes under an old epoch; no living instance is taken over        | after every command      |
//! | [`read_your_writes`]| what is read behind an answer shows what the answer said                    | every answer             |

pub(crate) mod alarms;
pub(crate) mod atomicity;
pub(crate) mod by_hand;
pub(crate) mod conservation;
pub(crate) mod fencing;
pub(crate) mod idempotency;
pub(crate) mod no_double_charge;
pub(crate) mod no_lost_answer;
pub(crate) mod one_decision;
pub(crate) mod order_state;
pub(crate) mod read_your_writes;
pub(crate) mod replaced;
