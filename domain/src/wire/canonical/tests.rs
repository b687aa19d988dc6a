//! Behaviour of the canonicaliser.
