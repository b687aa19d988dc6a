//! Signed checkpoints: how far a chain had come, said so that nobody can take it back (DESIGN section 10).
//!
//! A checkpoint names an entry of a project's chain by seq and hash. Each is a leaf of the project's [`Tree`], and
//! the signature covers the root, so a checkpoint also vouches for all before it. Its text is one line of JSON;
//! what is signed is bytes of fixed length, so that nothing depends on how the JSON is written:
//!
//! ```text
//! 21 bytes  "thalamus-checkpoint-1"
//! 16        the project's id, nil for the system's chain
//!  8        seq, big-endian
//! 32        hash of the entry
//!  8        time, microseconds since 1970, big-endian     up to here: the leaf
//!  8        leaves of the tree, this one included, big-endian
//! 32        root of the tree
//! ```

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chain::Hash;
use super::tree::Tree;
use crate::id::{self, ProjectId};
use crate::time::Timestamp;

const LABEL: &[u8] = b"thalamus-checkpoint-1";
/// The version of a line.
const VERSION: u8 = 1;

/// An entry to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub project: ProjectId,
    pub seq: u64,
    pub hash: Hash,
    pub at: Timestamp,
}

/// An entry that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub point: Point,
    /// Checkpoints of this project in its tree, this one included.
    pub size: u64,
    pub root: Hash,
    pub signature: [u8; 64],
}

impl Point {
    /// What a tree holds of it.
    pub fn leaf(&self) -> Vec<u8> {
        let Self { project, seq, hash, at } = self;
        [LABEL, &project.bytes(), &seq.to_be_bytes(), hash, &at.micros().to_be_bytes()].concat()
    }

    /// Puts the point into its project's tree, and signs that.
    pub fn sign(self, tree: &mut Tree, key: &CheckpointKey) -> Checkpoint {
        tree.push(&self.leaf());
        let (size, root) = (tree.size(), tree.root());
        let signature = key.0.sign(&message(&self, size, &root)).to_bytes();
        Checkpoint { point: self, size, root, signature }
    }
}

fn message(point: &Point, size: u64, root: &Hash) -> Vec<u8> {
    [&point.leaf()[..], &size.to_be_bytes(), root].concat()
}

/// A line of a file of checkpoints.
#[derive(Serialize, Deserialize)]
struct Line {
    checkpoint: u8,
    project_id: Option<ProjectId>,
    seq: u64,
    hash: String,
    at: Timestamp,
    size: u64,
    root: String,
    signature: String,
}

/// A line that is no checkpoint: torn, or of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint")]
pub struct NoCheckpoint;

impl Checkpoint {
    /// Whether one of the keys signed exactly this.
    pub fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        let (message, signature) =
            (message(&self.point, self.size, &self.root), Signature::from_bytes(&self.signature));
        keys.iter().any(|key| key.0.verify_strict(&message, &signature).is_ok())
    }

    /// One line without its end.
    pub fn line(&self) -> String {
        let Point { project, seq, hash, at } = self.point;
        let line = Line {
            checkpoint: VERSION,
            project_id: (project != ProjectId::NIL).then_some(project),
            seq,
            hash: hex::encode(hash),
            at,
            size: self.size,
            root: hex::encode(self.root),
            signature: hex::encode(self.signature),
        };
        serde_json::to_string(&line).expect("plain members always serialise")
    }
}

impl FromStr for Checkpoint {
    type Err = NoCheckpoint;

    fn from_str(line: &str) -> Result<Self, NoCheckpoint> {
        let line: Line = serde_json::from_str(line).map_err(|_| NoCheckpoint)?;
        if line.checkpoint != VERSION {
            return Err(NoCheckpoint);
        }
        let project = line.project_id.unwrap_or(ProjectId::NIL);
        let point = Point { project, seq: line.seq, hash: bytes(&line.hash)?, at: line.at };
        Ok(Self { point, size: line.size, root: bytes(&line.root)?, signature: bytes(&line.signature)? })
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NoCheckpoint> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NoCheckpoint)?;
    Ok(bytes)
}

/// Signs checkpoints. It is never printed; memory is wiped on drop.
pub struct CheckpointKey(SigningKey);

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckpointKey(..)")
    }
}

/// A text that is no key: 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: 64 hex digits")]
pub struct BadKey;

impl CheckpointKey {
    pub fn mint() -> Self {
        Self(SigningKey::from_bytes(&id::random()))
    }

    /// Reads what [`Self::text`] wrote.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let bytes = Zeroizing::new(bytes(text).map_err(|NoCheckpoint| BadKey)?);
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// The secret as 64 hex digits.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_bytes()))
    }

    /// What others verify with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

/// Verifies checkpoints; 64 hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes = bytes(text.trim()).map_err(|NoCheckpoint| BadKey)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| BadKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);

    /// The key of RFC 8032's first test vector.
    fn key() -> CheckpointKey {
        CheckpointKey::parse("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap()
    }

    fn second() -> Checkpoint {
        let mut tree = Tree::default();
        let point =
            |seq, byte| Point { project: PROJECT, seq, hash: [byte; 32], at: Timestamp::from_secs(1_800_000_000) };
        point(3, 1).sign(&mut tree, &key());
        point(9, 2).sign(&mut tree, &key())
    }

    #[test]
    fn what_is_signed_is_golden() {
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(key().public().to_string(), public, "as RFC 8032 says");
        let checkpoint = second();
        let message = message(&checkpoint.point, checkpoint.size, &checkpoint.root);
        assert_eq!(message.len(), 21 + 16 + 8 + 32 + 8 + 8 + 32);
        insta::assert_snapshot!(hex::encode(message), @"7468616c616d75732d636865636b706f696e742d31070707070707070707070707070707070000000000000009020202020202020202020202020202020202020202020202020202020202020200066517289880000000000000000002c96b6452e2d598e14cd056d56503c1cd1f502186fb6725ba6ca6ac875e645799");
        // Computed with hashlib and openssl pkeyutl.
        insta::assert_snapshot!(checkpoint.line(), @r#"{"checkpoint":1,"project_id":"07070707-0707-0707-0707-070707070707","seq":9,"hash":"0202020202020202020202020202020202020202020202020202020202020202","at":"2027-01-15T08:00:00.000000+00:00","size":2,"root":"c96b6452e2d598e14cd056d56503c1cd1f502186fb6725ba6ca6ac875e645799","signature":"c819459ee97247330127d5b066898450db5cb7e03dd287c1a53def3a573b23859167a5d09f673bc8a203649af9c5591f75b99dcf948386473b60a8750fb24b08"}"#);
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_fits_its_key_only() {
        let (checkpoint, other) = (second(), CheckpointKey::mint());
        assert_eq!(checkpoint.line().parse(), Ok(checkpoint));
        assert!(checkpoint.is_signed_by(&[other.public(), key().public()]));
        assert!(!checkpoint.is_signed_by(&[other.public()]));
        let again = CheckpointKey::parse(&other.text()).unwrap();
        assert_eq!(again.public(), other.public());
        assert_eq!(other.public().to_string().parse(), Ok(other.public()));
        assert_eq!(format!("{other:?}"), "CheckpointKey(..)");
    }

    #[test]
    fn a_change_of_any_member_is_seen() {
        let whole = second();
        let changes: [fn(&mut Checkpoint); 6] = [
            |it| it.point.project = ProjectId::NIL,
            |it| it.point.seq += 1,
            |it| it.point.hash[0] ^= 1,
            |it| it.point.at = it.point.at.plus_micros(1),
            |it| it.size += 1,
            |it| it.root[31] ^= 1,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut changed = whole;
            change(&mut changed);
            assert!(!changed.is_signed_by(&[key().public()]), "change {n}");
        }
    }

    #[test]
    fn half_a_line_is_none() {
        let line = second().line();
        for end in [0, 1, 50, line.len() - 1] {
            assert_eq!(line[..end].parse::<Checkpoint>(), Err(NoCheckpoint));
        }
        assert_eq!(line.replace("\"checkpoint\":1", "\"checkpoint\":2").parse::<Checkpoint>(), Err(NoCheckpoint));
    }
}
