//! A Merkle tree that only grows, of which only the peaks are kept (RFC 9162, section 2.1).
//!
//! A root stands for every leaf so far and their order, so one signature over the newest root vouches for all
//! checkpoints before it.

use sha2::{Digest, Sha256};

use super::chain::Hash;

/// What a leaf's hash begins with, so that no leaf can pass for a node.
const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

/// A tree of any size in at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Roots of the full subtrees, the largest first: one for each bit that is set in `size`.
    peaks: Vec<Hash>,
}

impl Tree {
    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Puts a leaf behind the last one.
    pub fn push(&mut self, leaf: &[u8]) {
        let mut hash: Hash = Sha256::new().chain_update(LEAF).chain_update(leaf).finalize().into();
        // Two full subtrees of one size become one, like a carry.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("every set bit of the size has its peak");
            hash = node(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves; of no leaves, the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(smallest) => peaks.fold(*smallest, |right, left| node(left, &right)),
            None => Sha256::digest([]).into(),
        }
    }
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update(NODE).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Leaves and roots that implementations of Certificate Transparency are tested with.
    #[test]
    fn roots_are_those_of_the_standard() {
        let leaves =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (size, root) in roots {
            let mut tree = Tree::default();
            leaves[..size].iter().for_each(|leaf| tree.push(&hex::decode(leaf).unwrap()));
            assert_eq!((tree.size(), hex::encode(tree.root()).as_str()), (size as u64, root));
        }
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(Tree::default().root()), nothing);
    }

    /// The definition, word by word: split at the largest power of two below the size.
    fn defined(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new().chain_update(LEAF).chain_update(leaf).finalize().into(),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&defined(&leaves[..split]), &defined(&leaves[split..]))
            }
        }
    }

    proptest! {
        #[test]
        fn the_peaks_give_the_root_that_is_defined(leaves in prop::collection::vec(any::<Vec<u8>>(), 0..70)) {
            let mut tree = Tree::default();
            leaves.iter().for_each(|leaf| tree.push(leaf));
            prop_assert_eq!(tree.root(), defined(&leaves));
        }
    }
}
