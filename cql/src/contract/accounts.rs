//! What of accounts ends by itself: web sessions and keys, by the time they carry and by a time to live.

use std::slice::from_ref;
use std::time::Duration;

use domain::id::{ApiKeyId, UserId, WebSessionId};
use domain::time::Timestamp;

use super::Shared;
use crate::accounts::login::SecretHash;
use crate::accounts::{ApiKey, Login, api_key, login};

pub(super) async fn all(store: &Shared) {
    a_session_past_its_end_is_in_no_list_and_swept(store).await;
    a_session_ends_with_its_row_also_when_it_was_seen_since(store).await;
    a_key_says_when_it_expires_and_which_use_was_the_last(store).await;
}

fn now() -> Timestamp {
    "2026-04-16T12:00:00Z".parse().unwrap()
}

fn session(user: UserId, seconds: i64) -> (SecretHash, Login) {
    let session = Login {
        id: WebSessionId::mint(now()),
        user,
        created_at: now(),
        last_seen_at: now(),
        expires_at: now().plus_secs(seconds),
        ip: "10.0.0.17".to_owned(),
        user_agent: None,
    };
    let hash = [session.id.bytes(), session.id.bytes()].concat();
    (hash.try_into().unwrap(), session)
}

async fn put(store: &Shared, (hash, session): &(SecretHash, Login), at: Timestamp) {
    login::put(store.as_ref(), hash, session, at).await.unwrap();
}

async fn a_session_past_its_end_is_in_no_list_and_swept(store: &Shared) {
    let user = UserId::mint(now());
    let (short, long) = (session(user, 3600), session(user, 7200));
    put(store, &short, now()).await;
    put(store, &long, now()).await;
    let store = store.as_ref();
    assert_eq!(login::of_user(store, user, now().plus_secs(3599)).await.unwrap().len(), 2);
    assert_eq!(login::get(store, &short.0).await.unwrap().as_ref(), Some(&short.1));
    assert_eq!(login::of_user(store, user, now().plus_secs(3600)).await.unwrap(), from_ref(&long));
    assert_eq!(login::get(store, &short.0).await.unwrap(), None);
    assert_eq!(login::of_user(store, user, now()).await.unwrap(), [long], "the index has let go of it too");
}

async fn a_session_ends_with_its_row_also_when_it_was_seen_since(store: &Shared) {
    let user = UserId::mint(now());
    let (short, long) = (session(user, 3600), session(user, 7200));
    put(store, &short, now()).await;
    put(store, &long, now()).await;
    let seen = Login { last_seen_at: now().plus_secs(3599), ..short.1.clone() };
    put(store, &(short.0, seen.clone()), seen.last_seen_at).await;
    assert_eq!(login::get(store.as_ref(), &short.0).await.unwrap(), Some(seen));

    // One second was left, and a row outlives its session by another.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert_eq!(login::get(store.as_ref(), &short.0).await.unwrap(), None);
    assert_eq!(login::of_user(store.as_ref(), user, now()).await.unwrap(), [long]);
}

async fn a_key_says_when_it_expires_and_which_use_was_the_last(store: &Shared) {
    let id = ApiKeyId::mint(now());
    let hash: [u8; 32] = [id.bytes(), id.bytes()].concat().try_into().unwrap();
    let mut key = ApiKey {
        id,
        user: UserId::mint(now()),
        name: "ci".to_owned(),
        prefix: "z4k_4nO2".to_owned(),
        token_hash: hash,
        scopes: vec!["tasks:read".to_owned()],
        project: None,
        allowed_cidrs: Vec::new(),
        created_at: now(),
        expires_at: Some(now().plus_secs(86_400)),
        revoked_at: None,
        revoked_reason: None,
        last_used_at: None,
        last_used_ip: None,
    };
    api_key::put(store.as_ref(), &key).await.unwrap();
    key.last_used_at = Some(now().plus_secs(61));
    api_key::put(store.as_ref(), &key).await.unwrap();
    // An expired key is told from one that never was, so it stays until it is removed.
    assert_eq!(api_key::by_token(store.as_ref(), &hash).await.unwrap(), Some(key.clone()));
    assert_eq!(api_key::of_user(store.as_ref(), key.user).await.unwrap(), from_ref(&key));
    key.revoked_at = Some(now().plus_secs(62));
    api_key::put(store.as_ref(), &key).await.unwrap();
    assert_eq!(api_key::of_user(store.as_ref(), key.user).await.unwrap(), []);
    assert_eq!(api_key::by_token(store.as_ref(), &hash).await.unwrap(), Some(key.clone()));
    api_key::remove(store.as_ref(), &key).await.unwrap();
    assert_eq!(api_key::by_token(store.as_ref(), &hash).await.unwrap(), None);
}
