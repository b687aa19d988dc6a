//! What may be asked of an agent, and how a request becomes an outcome.
//!
//! ```text
//! action      the closed set of actions, their wire words, redelivery classes (contract D23)
//! status      the five statuses and their aliases (D2)
//! field       one body, read member by member, with every mistake named
//! request     one validated request per verb, and its hash for idempotency (D21)
//! filter      which tasks a bulk-retry means (D19)
//! overrides   what a retry may replace, engine by engine (D20)
//! draft       a request with its caller and what the edge resolved for it
//! chunk       frozen ids of a bulk command, cut to what one frame may hold
//! wire        action, target, parameters as agents read them (WIRE 6.3)
//! capability  what an engine can do, joined with the agent's hello (D16)
//! claim       the token that finds command, chunk and attempt again; frame ids
//! secrets     what of a command is kept encrypted and shown scrubbed (D29)
//! transition  the only table of status changes
//! record      a command as stored and shown
//! scheduled   what a retry at a later time says of the task it made (M38)
//! ```

pub mod action;
pub mod capability;
pub mod chunk;
pub mod claim;
pub mod draft;
pub mod field;
pub mod filter;
pub mod overrides;
pub mod record;
pub mod request;
pub mod scheduled;
pub mod secrets;
pub mod status;
pub mod transition;
pub mod wire;

pub use action::{Action, Redelivery, Verb};
pub use capability::{Advertised, Support};
pub use chunk::{Chunk, FrozenTask};
pub use claim::{Attempt, Claim};
pub use draft::{Actor, Draft, Resolved, Source};
pub use field::FieldError;
pub use filter::BulkFilter;
pub use overrides::Overrides;
pub use record::{Command, CommandView, Delivered, Progress, Sight};
pub use request::{Asked, Request};
pub use scheduled::scheduled;
pub use status::Status;
pub use transition::{CommandEvent, CommandState, Refused};
