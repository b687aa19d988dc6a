//! The simulation: whole nodes, agents and operators on one thread, with one clock and one seed.
//!
//! Real meshes, sessions and signed frames run on paused time over a store that fails, links that lose, delay and
//! break, and agents that do what agents do at the worst moment. The [`judge`] reads every ledger entry as it
//! becomes durable and is told of every frame that leaves, every action that is done and every answer that is
//! given; it knows nothing of the code it judges. A seed decides everything, so a failure is run again with
//! `THALAMUS_SIM_SEED=<seed> cargo test -p actors --locked sim::seeds -- --nocapture`.
//!
//! ```text
//! run        one seed: chaos, then health, then the last judgement
//! world      what everyone in a run shares
//! node       a mesh that crashes and starts again
//! store      the node's way to the store: fails, stalls, and dies at a chosen step
//! link       the connection between an agent's process and a session
//! agent      an agent's process
//! operator   who issues commands, and tries again
//! judge      what must always hold
//! tally      how often each fault was injected
//! cluster    the same judge over two nodes on a real cluster, in real time
//! ```

mod agent;
mod cluster;
mod judge;
mod link;
mod node;
mod operator;
mod run;
mod seeds;
mod store;
mod tally;
mod world;
