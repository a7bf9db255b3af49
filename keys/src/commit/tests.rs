//! Commit signatures: made by ed25519-dalek, checked by aws-lc, so neither judges itself.

use proptest::prelude::*;

use super::*;
use crate::keyfile::PrivateKey;

const COMMIT: &[u8] = b"commit object";

#[test]
fn one_fitting_pair_suffices() {
    let [a, b, c] = [0; 3].map(|_| PrivateKey::generate().unwrap());
    let public = |keys: &[&PrivateKey]| {
        keys.iter()
            .map(|key| key.public_base64())
            .collect::<Vec<_>>()
    };
    let signatures = |keys: &[&PrivateKey]| {
        keys.iter()
            .map(|key| key.sign(COMMIT).to_vec())
            .collect::<Vec<_>>()
    };
    let untrusted = |signatures, keys| Err(CommitError::Untrusted { signatures, keys });
    type Case<'a> = (
        &'a [&'a PrivateKey],
        &'a [&'a PrivateKey],
        Result<(), CommitError>,
    );
    let cases: &[Case] = &[
        (&[&a], &[&a], Ok(())),
        (&[&a, &b], &[&b], Ok(())),
        (&[&a], &[&b, &a], Ok(())),
        (&[&a, &b], &[&c, &b], Ok(())),
        (&[&a], &[&b], untrusted(1, 1)),
        (&[&a, &b], &[&c], untrusted(1, 2)),
        (&[&a], &[], Err(CommitError::Unsigned)),
        (&[], &[&a], Err(CommitError::NoKeys)),
        (&[], &[], Err(CommitError::NoKeys)),
    ];
    for (i, (known, signed, expected)) in cases.iter().enumerate() {
        assert_eq!(
            &verify(&public(known), COMMIT, &signatures(signed)),
            expected,
            "case {i}"
        );
    }
}

#[test]
fn what_is_malformed_is_named_and_does_no_harm_beside_the_good() {
    let key = PrivateKey::generate().unwrap();
    let good = (key.public_base64(), key.sign(COMMIT).to_vec());
    let other = PrivateKey::generate().unwrap().public_base64();
    for bad in ["", "AAAA", "not base64!", &"A".repeat(88)] {
        let error = verify(&[bad.to_owned()], COMMIT, std::slice::from_ref(&good.1)).unwrap_err();
        assert!(
            matches!(&error, CommitError::Malformed(text) if text.contains(bad)),
            "{error}"
        );
        assert_eq!(
            verify(
                &[bad.to_owned(), good.0.clone()],
                COMMIT,
                std::slice::from_ref(&good.1)
            ),
            Ok(())
        );
    }
    for bad in [vec![], vec![0; 63], vec![0; 65]] {
        let error = verify(
            std::slice::from_ref(&other),
            COMMIT,
            std::slice::from_ref(&bad),
        )
        .unwrap_err();
        assert!(matches!(error, CommitError::Malformed(_)), "{error}");
        assert_eq!(
            verify(
                std::slice::from_ref(&good.0),
                COMMIT,
                &[bad, good.1.clone()]
            ),
            Ok(())
        );
    }
    let spaced = format!(" {}\n", good.0);
    assert_eq!(verify(&[spaced], COMMIT, &[good.1]), Ok(()));
}

proptest! {
    /// Any change to the commit or to the signature is noticed.
    #[test]
    fn every_changed_bit_is_noticed(commit in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = PrivateKey::generate().unwrap();
        let keys = [key.public_base64()];
        let signature = key.sign(&commit).to_vec();
        prop_assert_eq!(verify(&keys, &commit, std::slice::from_ref(&signature)), Ok(()));

        let mut changed = commit.clone();
        changed[at.index(commit.len())] ^= 1 << bit;
        prop_assert!(verify(&keys, &changed, std::slice::from_ref(&signature)).is_err());

        let mut changed = signature;
        changed[at.index(64)] ^= 1 << bit;
        prop_assert!(verify(&keys, &commit, &[changed]).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(keys in prop::collection::vec("\\PC*", 0..4), commit: Vec<u8>, signatures: Vec<Vec<u8>>) {
        prop_assert!(verify(&keys, &commit, &signatures).is_err());
    }
}
