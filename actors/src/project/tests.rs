mod bulk;
mod delivery;
mod full;
mod harness;
mod lifecycle;
mod wake;
