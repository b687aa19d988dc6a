mod bulk;
mod delivery;
mod harness;
mod homes;
mod lifecycle;
mod wake;
