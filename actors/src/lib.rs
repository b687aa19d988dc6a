//! The actor mesh of Thalamus.
