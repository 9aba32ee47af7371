//! Tests of admission: every role with every wish.

use super::*;
use relay_protocol::{Digest, Order, Seeding, SwarmKey, Token};

const SESSION: [u8; BINDING_BYTES] = [1; BINDING_BYTES];

fn admission(open_get: bool) -> TokenRules {
    let lines = ["both", "publish:publisher", "get:getter", "get:twice", "publish:twice"];
    let tokens = lines.iter().filter_map(|line| Grant::from_line(line)).collect();
    TokenRules { tokens, open_get }
}

fn key(size_bytes: u64) -> Option<SwarmKey> {
    Some(SwarmKey { id: Digest([7; 32]), size_bytes, chunk_size_log2: 10 })
}

/// A hello that proves this token, if any.
fn hello(token: Option<&str>, claims: Claims, publishes: bool) -> Hello {
    let proof = token.and_then(Token::from_line).map(|token| token.proof(&SESSION));
    let seeding = publishes.then_some(Seeding::Origin);
    Hello { key: key(5000), proof, claims, order: Order::Relay, seeding }
}

fn says(admission: &TokenRules, hello: &Hello) -> Result<Roles, String> {
    admission.admit(&SESSION, hello).map_err(|fault| {
        assert_eq!((fault.code, fault.reason), (FailureCode::TokenRefused, "token"));
        fault.text
    })
}

#[test]
fn each_token_is_good_for_what_its_line_says() {
    let admission = admission(false);
    assert_eq!(admission.demand(), TokenDemand::Always);
    let everything = [Claims::Nothing, Claims::Some, Claims::Everything];
    for (token, roles) in [
        ("both", Roles::BOTH),
        ("publisher", Roles::PUBLISH),
        ("getter", Roles::GET),
        ("twice", Roles::BOTH),
    ] {
        for claims in everything {
            for publishes in [false, true] {
                let said = says(&admission, &hello(Some(token), claims, publishes));
                let is_whole = publishes && claims == Claims::Everything;
                match said {
                    Ok(given) => {
                        assert_eq!(given, roles);
                        assert!(roles.may_publish() || !publishes, "{token}");
                        assert!(roles.may_get() || is_whole, "{token} {claims:?}");
                    }
                    Err(text) if publishes && !roles.may_publish() => {
                        assert!(text.contains("publish none"), "{text}");
                    }
                    Err(text) => {
                        assert!(!roles.may_get() && !is_whole, "{token} {claims:?}: {text}");
                        assert!(text.contains("get none"), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_peer_without_a_token_or_with_a_wrong_one_is_refused() {
    for publishes in [false, true] {
        let claims = Claims::Everything;
        let text = says(&admission(false), &hello(None, claims, publishes)).expect_err("refused");
        assert!(text.contains("wants a token"), "{text}");
        for open_get in [false, true] {
            // The words of a line are no part of its token.
            for wrong in ["other", "get:getter"] {
                let hello = hello(Some(wrong), claims, publishes);
                let text = says(&admission(open_get), &hello).expect_err("refused");
                assert!(text.contains("does not know"), "{text}");
            }
        }
    }
}

#[test]
fn where_getting_is_open_only_publishers_and_observers_need_a_token() {
    let admission = admission(true);
    assert_eq!(admission.demand(), TokenDemand::ToPublish);
    for claims in [Claims::Nothing, Claims::Some, Claims::Everything] {
        assert_eq!(says(&admission, &hello(None, claims, false)), Ok(Roles::GET));
        let text = says(&admission, &hello(None, claims, true)).expect_err("refused");
        assert!(text.contains("of those who publish"), "{text}");
    }
    let observer = Hello { key: None, ..hello(None, Claims::Nothing, false) };
    assert!(says(&admission, &observer).is_err_and(|text| text.contains("wants a token")));
}

#[test]
fn an_observer_needs_any_token_and_learns_whether_it_may_publish() {
    let admission = admission(false);
    for (token, may_publish) in [("both", true), ("publisher", true), ("getter", false)] {
        let observer = Hello { key: None, ..hello(Some(token), Claims::Nothing, false) };
        assert!(says(&admission, &observer).is_ok(), "{token}");
        let observer = Hello { seeding: Some(Seeding::Origin), ..observer };
        assert_eq!(says(&admission, &observer).is_ok(), may_publish, "{token}");
    }
}

#[test]
fn an_empty_file_is_published_by_a_peer_that_claims_nothing() {
    let empty = Hello { key: key(0), ..hello(Some("publisher"), Claims::Nothing, true) };
    assert_eq!(says(&admission(false), &empty), Ok(Roles::PUBLISH));
    let get = Hello { seeding: None, ..empty };
    assert!(says(&admission(false), &get).is_err());
}

#[test]
fn without_tokens_all_may_do_all() {
    for open_get in [false, true] {
        let admission = TokenRules { tokens: Vec::new(), open_get };
        assert_eq!(admission.demand(), TokenDemand::None);
        for publishes in [false, true] {
            for token in [None, Some("any")] {
                let hello = hello(token, Claims::Nothing, publishes);
                assert_eq!(says(&admission, &hello), Ok(Roles::BOTH));
            }
        }
    }
}
