//! Boot states, and the deployments they meet.

use bsp::boot::state::BootState;
use bsp::boot::uboot::env::{render_copy, set_good, set_state};
use bsp::boot::variables::Variables;

use super::machine::ENVIRONMENT;

/// A state and the deployments it meets.
pub struct Case {
    pub name: &'static str,
    pub copies: [Vec<u8>; 2],
    pub entries: &'static [&'static str],
    pub read_only: bool,
}

fn copy(flag: u8, variables: &Variables) -> Vec<u8> {
    render_copy(flag, variables, ENVIRONMENT.size.0).unwrap()
}

/// A copy as from an erased flash.
pub fn blank() -> Vec<u8> {
    vec![0xff; 0x4000]
}

/// A valid copy with our mark and these variables, whatever they are.
pub fn raw(flag: u8, variables: &[(&str, &str)]) -> Vec<u8> {
    let pairs = variables.iter().chain(&[("treeline", "1")]);
    let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    copy(flag, &pairs.map(own).collect())
}

fn variables(good: &str, trial: Option<&str>, tries: u8) -> Variables {
    let mut variables = Variables::new();
    let state = BootState {
        good: good.into(),
        trial: trial.map(str::to_owned),
        tries,
    };
    set_state(&mut variables, &state).unwrap();
    variables
}

fn good(flag: u8, id: &str) -> Vec<u8> {
    copy(flag, &variables(id, None, 0))
}

fn on_trial(flag: u8, good: &str, trial: &str, tries: u8) -> Vec<u8> {
    copy(flag, &variables(good, Some(trial), tries))
}

fn spare(flag: u8, id: &str) -> Vec<u8> {
    let mut variables = Variables::new();
    set_good(&mut variables, id).unwrap();
    copy(flag, &variables)
}

fn torn(mut copy: Vec<u8>) -> Vec<u8> {
    copy[512..].fill(0xee);
    copy
}

/// Both copies after a confirmation.
pub fn confirmed(id: &str) -> [Vec<u8>; 2] {
    [good(1, id), spare(0, id)]
}

/// Both copies with a trial, in the first one.
pub fn trial(good_id: &str, trial: &str, tries: u8) -> [Vec<u8>; 2] {
    [on_trial(5, good_id, trial, tries), good(4, good_id)]
}

const BA: &[&str] = &["b", "a"];
const ONE: &[&str] = &["b"];
/// As long as real ones.
const LONG: &[&str] = &[
    "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8-2",
    "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
];

fn case(name: &'static str, copies: [Vec<u8>; 2], entries: &'static [&'static str]) -> Case {
    Case {
        name,
        copies,
        entries,
        read_only: false,
    }
}

fn read_only(case: Case) -> Case {
    Case {
        read_only: true,
        ..case
    }
}

/// What every machine must get right.
pub fn few() -> Vec<Case> {
    let before_wrap = [on_trial(255, "a", "b", 3), good(254, "a")];
    let after_wrap = [good(255, "a"), on_trial(0, "a", "b", 3)];
    vec![
        case("confirmed", confirmed("b"), BA),
        case("trial", trial("a", "b", 3), BA),
        case("last try", trial("a", "b", 1), BA),
        case("no tries left", trial("a", "b", 0), BA),
        case("all lost", [blank(), blank()], BA),
        case("trial before the wrap", before_wrap, BA),
        case("trial after the wrap", after_wrap, BA),
        case(
            "newer copy torn",
            [good(1, "a"), torn(on_trial(2, "a", "b", 3))],
            BA,
        ),
        read_only(case("trial, write-protected", trial("a", "b", 3), BA)),
    ]
}

/// Everything.
pub fn all() -> Vec<Case> {
    let mut cases = few();
    cases.extend(decisions());
    cases.extend(copies());
    cases.extend(foreign());
    cases
}

fn decisions() -> Vec<Case> {
    vec![
        case("confirmed, one entry", confirmed("b"), ONE),
        case("good stands second", confirmed("a"), BA),
        case("good stands third", confirmed("a"), &["c", "b", "a"]),
        case(
            "good stands eighth",
            confirmed("a"),
            &["h", "g", "f", "e", "d", "c", "b", "a"],
        ),
        case("armed, not switched", trial("a", "b", 3), &["a", "z"]),
        case("another trial", trial("a", "x", 3), BA),
        case("nothing is good", confirmed("x"), BA),
        case("nothing is good, one entry", confirmed("x"), ONE),
        case("trial of the only entry", trial("a", "b", 2), ONE),
        case("no tries left, nothing is good", trial("x", "b", 0), BA),
        case("nine tries", trial("a", "b", 9), BA),
        case("two tries", trial("a", "b", 2), BA),
        case("long identities", trial(LONG[1], LONG[0], 3), LONG),
        case(
            "long identities, exhausted",
            trial(LONG[1], LONG[0], 0),
            LONG,
        ),
        read_only(case("confirmed, write-protected", confirmed("b"), BA)),
    ]
}

fn copies() -> Vec<Case> {
    let second = |flag| on_trial(flag, "a", "b", 3);
    vec![
        case("trial in the second copy", [good(4, "a"), second(5)], BA),
        case("first copy newer", [good(5, "b"), second(4)], BA),
        case("the same flag", [good(7, "b"), second(7)], BA),
        case("flags far apart", [good(3, "b"), second(200)], BA),
        case("only the second copy", [blank(), second(9)], BA),
        case("only the first copy", [second(0xff), blank()], BA),
        case("older copy torn", [torn(good(1, "a")), second(2)], BA),
        case("both torn", [torn(good(1, "a")), torn(second(2))], BA),
        case(
            "both torn, one entry",
            [torn(good(1, "a")), torn(second(2))],
            ONE,
        ),
        case("zeros", [vec![0; 0x4000], vec![0; 0x4000]], BA),
        case(
            "state torn, spare record first",
            [torn(good(2, "b")), spare(1, "b")],
            BA,
        ),
        case(
            "state torn, spare record second",
            [torn(good(2, "a")), spare(1, "a")],
            BA,
        ),
        case(
            "only spare records, they differ",
            [spare(2, "a"), spare(1, "b")],
            BA,
        ),
    ]
}

fn foreign() -> Vec<Case> {
    let ours = [("good", "a"), ("trial", "b")];
    let with = |tries: &str| raw(2, &[ours[0], ours[1], ("tries", tries)]);
    let other = copy(
        2,
        &[("treeline".into(), "2".into()), ("good".into(), "b".into())].into(),
    );
    let empty = copy(2, &Variables::new());
    let mut many = variables("a", Some("b"), 3);
    for number in 0..300 {
        many.insert(
            format!("serial{number}"),
            format!("value, with: {number} \"quotes\" $x"),
        );
    }
    let mut own_names = variables("a", Some("b"), 3);
    for (name, value) in [
        ("bootcmd", "reset"),
        ("kernel_addr_r", "0"),
        ("devtype", "usb"),
        ("kernel_image", "/none"),
        ("baudrate", "9600"),
        ("filesize", "1"),
        ("tl_known", "b"),
        ("tl_choice", "2"),
    ] {
        own_names.insert(name.into(), value.into());
    }
    vec![
        case("ten tries", [with("10"), spare(1, "b")], BA),
        case("tries in words", [with("x"), spare(1, "b")], BA),
        case("no tries", [raw(2, &ours), spare(1, "b")], BA),
        case(
            "no trial",
            [raw(2, &[ours[0], ("tries", "3")]), good(1, "b")],
            BA,
        ),
        case(
            "another format, spare record",
            [other.clone(), spare(1, "b")],
            BA,
        ),
        case("another format", [other, blank()], BA),
        case("an empty environment", [empty, blank()], BA),
        case(
            "many variables of an operator",
            [copy(1, &many), blank()],
            BA,
        ),
        case(
            "variables of U-Boot's and the script's names",
            [copy(1, &own_names), blank()],
            BA,
        ),
    ]
}
