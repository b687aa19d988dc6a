//! One agent connection: a plain task per socket, so that an idle agent stays small.
//!
//! ```text
//! handle    what the mesh knows of a session, and the orders it takes
//! orders    what waits for a session to do it
//! answers   what an agent says about commands, scrubbed, to its project
//! events    verified batches -> sightings, one send per recorder
//! polled    the same without a socket: uploads and polls
//! run       the loop: drain the socket, verify, hand over; sign acks and commands in write order
//! ```

mod answers;
mod events;
pub mod handle;
mod orders;
pub mod polled;
mod run;

pub use handle::{CommandFrame, Sent, SessionFacts, SessionHandle, SessionMessage};
pub use orders::Orders;
pub use run::{Opening, run};
