//! Tokens let in those who have them, as long as they live.

use crate::bench::Bench;
use domain::principal::Role;
use std::time::Duration;

pub(crate) async fn a_token_stands_for_its_name_and_role(bench: Bench) {
    for role in Role::ALL {
        let token = bench.store.create_token(role.as_str(), role, None, "ada").await.unwrap();
        assert!(token.starts_with("bw_") && token.len() == 67);
        let principal = bench.store.authenticate(&token).await.unwrap().unwrap();
        assert_eq!((principal.name.as_str(), principal.role), (role.as_str(), role));
    }
    assert_eq!(bench.store.tokens().await.unwrap().len(), 4);
}

pub(crate) async fn what_is_no_token_lets_nobody_in(bench: Bench) {
    let token = bench.store.create_token("admin", Role::Admin, None, "ada").await.unwrap();
    let digest = domain::Digest::of(token.as_bytes()).to_string();
    for wrong in ["", "bw_", "admin", &token[..66], &digest, &token.to_uppercase(), &format!("{}0", *token)] {
        assert_eq!(bench.store.authenticate(wrong).await.unwrap(), None, "{wrong}");
    }
}

pub(crate) async fn an_expired_or_revoked_token_lets_nobody_in_and_frees_its_name(bench: Bench) {
    let expired = bench.store.create_token("a", Role::Viewer, Some(Duration::ZERO), "ada").await.unwrap();
    assert_eq!(bench.store.authenticate(&expired).await.unwrap(), None);
    let hour = Duration::from_hours(1);
    let second = bench.store.create_token("a", Role::Operator, Some(hour), "ada").await.unwrap();
    assert!(bench.store.authenticate(&second).await.unwrap().is_some());
    let error = bench.store.create_token("a", Role::Viewer, None, "ada").await.unwrap_err();
    assert_eq!(error.code(), "token.exists");
    for _ in 0..2 {
        bench.store.revoke_token("a", "bob").await.unwrap();
    }
    assert_eq!(bench.store.authenticate(&second).await.unwrap(), None);
    assert_eq!(bench.kinds(0).await, ["token.created", "token.created", "token.revoked"]);
    bench.store.create_token("a", Role::Viewer, None, "ada").await.unwrap();
}

pub(crate) async fn revoking_what_is_not_there_says_so(bench: Bench) {
    assert_eq!(bench.store.revoke_token("a", "bob").await.unwrap_err().code(), "token.not-found");
}
