//! Password hashes and what a password must be.
//!
//! A hash costs 19 MiB and some tens of milliseconds, so only a few are computed at a time, off the threads
//! that serve requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use crate::edge::error::{ApiError, ApiResult};

pub const LENGTH_MIN: usize = 12;
pub const LENGTH_MAX: usize = 256;
/// Of lower case, upper case, digits and anything else.
pub const CLASSES_MIN: usize = 3;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const AT_A_TIME: usize = 2;
const OUTPUT: usize = 32;
/// Stack of a thread that computes a hash: its memory, once more where a build does not make the blocks in place, and
/// something to work with. Only what is touched is taken.
const STACK: usize = (2 * MEMORY_KIB as usize + 1024) << 10;

/// Compared when there is no such user, so that both cases take the same time. The hash of no password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The bounded pool of hash computations.
pub struct Passwords {
    permits: Arc<Semaphore>,
    computed: Arc<AtomicU64>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

impl Passwords {
    pub fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_A_TIME)), computed: Arc::default() }
    }

    /// How many hashes were computed, for a new password or to compare.
    #[cfg(test)]
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// The hash of a new password, as a PHC string.
    pub async fn hash(&self, password: &str) -> ApiResult<String> {
        let password = password.to_owned();
        self.compute(move |hasher| hasher.hash_password(password.as_bytes())).await
    }

    /// Whether a password fits a stored hash; `None` stands for a user who does not exist.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> ApiResult<bool> {
        let (password, exists) = (password.to_owned(), hash.is_some());
        let hash = hash.unwrap_or(NOBODY).to_owned();
        self.compute(move |hasher| {
            let hash = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
            Ok(hasher.verify_password(password.as_bytes(), &hash) && exists)
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(Counted) -> Result<T, String> + Send + 'static,
    ) -> ApiResult<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|error| ApiError::Internal(Box::new(error)))?;
        let hasher = Counted(Arc::clone(&self.computed));
        let done = tokio::task::spawn_blocking(move || {
            let computing = std::thread::Builder::new().name("hash".to_owned()).stack_size(STACK);
            let result = match computing.spawn(move || work(hasher)) {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err("the hash panicked".to_owned())),
                Err(error) => Err(format!("no thread for a hash: {error}")),
            };
            drop(permit); // with the thread, not with a caller who went away
            result
        });
        done.await.map_err(|error| ApiError::Internal(Box::new(error)))?.map_err(|text| ApiError::Internal(text.into()))
    }
}

/// Computes one hash, and counts it.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn hash_password(self, password: &[u8]) -> Result<String, String> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| error.to_string())?;
        let salt = Salt::new(&domain::id::random::<16>()).map_err(|error| error.to_string())?;
        let hash = self.derive(&params, password, &salt).map_err(|error| error.to_string())?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(|error| error.to_string())?,
            salt: Some(salt),
            hash: Some(hash),
        };
        Ok(hash.to_string())
    }

    fn verify_password(self, password: &[u8], hash: &PasswordHash) -> bool {
        let (Ok(params), Some(salt), Some(expected)) = (Params::try_from(hash), &hash.salt, &hash.hash) else {
            return false;
        };
        // Outputs are compared in constant time.
        self.derive(&params, password, salt).is_ok_and(|derived| derived == *expected)
    }

    /// Computes in memory of the thread's stack, which goes with the thread. The allocator keeps some of 19 MiB for ever.
    #[expect(clippy::large_stack_arrays, reason = "the stack was made for it")]
    fn derive(self, params: &Params, password: &[u8], salt: &Salt) -> Result<Output, String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut memory = [Block::new(); MEMORY_KIB as usize];
        let mut derived = [0; OUTPUT];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password, salt, &mut derived, &mut memory[..])
            .map_err(|error| error.to_string())?;
        Output::new(&derived).map_err(|error| error.to_string())
    }
}

/// What is wrong with a new password, in a sentence.
pub fn weakness(password: &str) -> Option<String> {
    let length = password.chars().count();
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Some(format!("The password should have {LENGTH_MIN} to {LENGTH_MAX} characters"));
    }
    let lower = password.chars().any(char::is_lowercase);
    let upper = password.chars().any(char::is_uppercase);
    let digit = password.chars().any(|c| c.is_ascii_digit());
    let other = password.chars().any(|c| !c.is_lowercase() && !c.is_uppercase() && !c.is_ascii_digit());
    let classes = [lower, upper, digit, other].into_iter().filter(|has| *has).count();
    (classes < CLASSES_MIN)
        .then(|| format!("The password should have {CLASSES_MIN} of: lower case, upper case, digits, other characters"))
}

/// A new password that passes, with 120 bits of chance.
pub fn generate() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = domain::id::random::<24>();
    let letters: String = random.iter().map(|byte| LETTERS[usize::from(byte % 32)] as char).collect();
    let groups: Vec<&str> = (0..4).map(|n| &letters[n * 6..n * 6 + 6]).collect();
    format!("{}-Q7", groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_four_classes_and_twelve_characters_are_needed() {
        for (password, strong) in [
            ("Short1!", false),
            ("alllowercaseletters", false),
            ("lowercase123456", false),
            ("Lowercase123456", true),
            ("lower-case-12345", true),
            ("ÄÖÜäöü-1234-x", true),
        ] {
            assert_eq!(weakness(password).is_none(), strong, "{password}");
        }
        assert_eq!(weakness(&generate()), None);
        assert_ne!(generate(), generate());
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_and_nobody_fits_any() {
        let passwords = Passwords::new();
        let hash = passwords.hash("Lowercase123456").await.expect("hashed");
        for hash in [&*hash, NOBODY] {
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash} costs as much as any other");
        }
        assert!(passwords.verify("Lowercase123456", Some(&hash)).await.expect("verified"));
        assert!(!passwords.verify("lowercase123456", Some(&hash)).await.expect("verified"));
        assert!(!passwords.verify("", None).await.expect("verified"));
    }

    #[tokio::test]
    async fn a_hash_of_the_reference_implementation_fits() {
        let stored =
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$kc37UiKD2PfDgmIope05o6swgxh9VoRDVHsOZ0g+wQI";
        assert!(Passwords::new().verify("Lowercase123456", Some(stored)).await.expect("verified"));
    }
}
