//! The edge in process: the real router and actors on the memory store, time standing still.

mod accounts;
mod auth;
mod bad_input;
mod clients;
mod commands;
mod delete;
mod export;
mod fleet;
mod keys;
mod node;
mod openapi;
mod process;
mod stats;
mod table;
mod tasks;
