//! Ids of things that nobody mints: the same thing yields the same id each time it is asked for.
//!
//! They are version 7 like all others (contract D10): 48 bits of a time that is stable for the thing, and where
//! minted ids are random, 74 bits of SHA-256(scope, name).

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::time::Timestamp;

/// The id of what is called `name` in `scope`. `at` counts in whole milliseconds, and must be stable for the thing.
pub fn derived(at: Timestamp, scope: Uuid, name: impl AsRef<[u8]>) -> Uuid {
    let hash = Sha256::new().chain_update(scope.as_bytes()).chain_update(name).finalize();
    let mut rest = [0; 10];
    rest.copy_from_slice(&hash[..10]);
    Builder::from_unix_timestamp_millis(at.millis().max(0).unsigned_abs(), &rest).into_uuid()
}

/// The id of what is called `name` in `scope`, as old as `scope` itself, a version 7 UUID.
pub fn derived_in(scope: Uuid, name: impl AsRef<[u8]>) -> Uuid {
    let millis = scope.as_bytes()[..6].iter().fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
    derived(Timestamp::from_millis(millis), scope, name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::{Variant, Version};

    use super::*;

    const SCOPE: Uuid = Uuid::from_u128(0x019d_9629_927b_71c8_bfff_ffff_ffff_ffff);

    #[test]
    fn the_formats_are_for_ever() {
        let at = Timestamp::from_micros(1_776_340_800_123_456);
        assert_eq!(derived(at, SCOPE, "w1@vm").to_string(), "019d9629-927b-7e4d-870e-bd345bb39915");
        assert_eq!(derived_in(SCOPE, "w1@vm"), derived(at, SCOPE, "w1@vm"), "the scope is as old");
        assert_eq!(
            derived(Timestamp::from_micros(-1), SCOPE, "w1@vm").to_string(),
            "00000000-0000-7e4d-870e-bd345bb39915"
        );
        assert_eq!(derived_in(Uuid::nil(), "").to_string(), "00000000-0000-7747-88ff-f7719dd5979e");
    }

    proptest! {
        #[test]
        fn a_thing_has_one_id_of_version_7_with_its_time(millis in 0_i64..1 << 48, scope: u128, name: Vec<u8>, other: Vec<u8>) {
            let (at, scope) = (Timestamp::from_millis(millis), Uuid::from_u128(scope));
            let id = derived(at, scope, &name);
            prop_assert_eq!((id.get_version(), id.get_variant()), (Some(Version::SortRand), Variant::RFC4122));
            prop_assert_eq!(id, derived(at.plus_micros(999), scope, &name), "within the same millisecond");
            prop_assert_eq!(id.as_u128() >> 80, millis.unsigned_abs().into());
            prop_assert_eq!(id == derived(at, scope, &other), name == other);
            prop_assert_eq!(derived_in(id, &name).as_u128() >> 80, millis.unsigned_abs().into());
        }
    }
}
