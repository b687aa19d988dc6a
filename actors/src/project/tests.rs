mod bulk;
mod delivery;
mod harness;
mod lifecycle;
mod wake;
