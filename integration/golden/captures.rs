//! Every capture in `captures/`, replayed: what a node makes of each frame, byte by byte, at which time, and all that it
//! counts.
//!
//! What has to come of a capture is written by hand in `cases`. The files are made from that: `PEARP_BLESS=1` writes
//! them, and refuses where the node does not do what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::{env, fs};

use pearp::node::DropReason;
use smoltcp::time::Instant;

use crate::case::{Case, Timed};
use crate::cases::{all, found};
use crate::files::{
    Direction, actual_directory, counters_in, description, description_path, directory, files_below, pcaps,
    read_pcaps, write,
};
use crate::replay::{Replayed, counters_of, replay};
use crate::topology::Link;
use crate::words;

/// The fewest captures that there may be.
const LEAST: usize = 80;

/// A frame, and when it has to come.
struct Due<'a> {
    from: Instant,
    to: Instant,
    bytes: &'a [u8],
}

impl<'a> Due<'a> {
    fn at(frame: &'a Timed) -> Self {
        Self { from: frame.at, to: frame.at, bytes: &frame.bytes }
    }
}

/// How the frames of a link differ from those that are due.
fn compare(direction: Direction, link: Link, due: &[Due<'_>], actual: &[&Timed], differences: &mut String) {
    for number in 0..due.len().max(actual.len()) {
        let place = format!("  frame {} {} on {link}", number + 1, direction.name());
        match (due.get(number), actual.get(number)) {
            (Some(due), Some(frame)) => {
                if !(due.from..=due.to).contains(&frame.at) {
                    let (from, to) = (words::time(due.from), words::time(due.to));
                    writeln!(differences, "{place}: at {} s, not at {from} to {to} s", words::time(frame.at))
                        .unwrap();
                }
                if due.bytes != frame.bytes {
                    let text = words::difference(link.medium(), due.bytes, &frame.bytes);
                    writeln!(differences, "{place}:\n{text}").unwrap();
                }
            }
            (Some(due), None) => {
                let said = words::describe(link.medium(), due.bytes);
                writeln!(differences, "{place}: missing at {} s: {said}", words::time(due.from)).unwrap();
            }
            (None, Some(frame)) => {
                let (said, at) = (words::describe(link.medium(), &frame.bytes), words::time(frame.at));
                let bytes = words::hexdump(&frame.bytes, None);
                writeln!(differences, "{place}: too much at {at} s: {said}\n{bytes}").unwrap();
            }
            (None, None) => {}
        }
    }
}

fn compare_counters(due: &BTreeMap<String, u64>, actual: &BTreeMap<String, u64>, differences: &mut String) {
    let names: BTreeSet<_> = due.keys().chain(actual.keys()).collect();
    for name in names {
        let of = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
        if of(due) != of(actual) {
            writeln!(differences, "  counter {name}: expected {}, got {}", of(due), of(actual)).unwrap();
        }
    }
}

/// How what came of a capture differs from what is written by hand.
fn against_case(case: &Case, replayed: &Replayed) -> String {
    let mut differences = String::new();
    for link in Link::ALL {
        let due: Vec<_> = case
            .outputs
            .iter()
            .filter(|expected| expected.link == link)
            .map(|expected| Due { from: expected.from, to: expected.to, bytes: &expected.bytes })
            .collect();
        compare(Direction::Out, link, &due, &of_link(&replayed.outputs, link), &mut differences);
    }
    compare_counters(&case.counters, &replayed.counters, &mut differences);
    differences
}

/// How it differs from the files.
fn against_files(case: &Case, replayed: &Replayed) -> String {
    let mut differences = String::new();
    let committed = read_pcaps(&directory(), &case.name, Direction::Out);
    for link in Link::ALL {
        let due: Vec<_> = of_link(&committed, link).into_iter().map(Due::at).collect();
        compare(Direction::Out, link, &due, &of_link(&replayed.outputs, link), &mut differences);
    }
    for (path, bytes) in files_of(case, replayed) {
        match fs::read(directory().join(&path)) {
            Ok(committed) if committed == bytes => {}
            Ok(_) => writeln!(differences, "  captures/{path} is not what this case makes").unwrap(),
            Err(error) => writeln!(differences, "  captures/{path}: {error}").unwrap(),
        }
    }
    let described = fs::read_to_string(directory().join(description_path(&case.name))).unwrap_or_default();
    match counters_in(&described) {
        Ok(counters) => compare_counters(&counters, &replayed.counters, &mut differences),
        Err(error) => writeln!(differences, "  {}: {error}", description_path(&case.name)).unwrap(),
    }
    differences
}

fn of_link(frames: &[Timed], link: Link) -> Vec<&Timed> {
    frames.iter().filter(|frame| frame.link == link).collect()
}

/// All files of a case, by their path.
fn files_of(case: &Case, replayed: &Replayed) -> BTreeMap<String, Vec<u8>> {
    let mut files = pcaps(&case.name, &case.inputs, Direction::In);
    files.extend(pcaps(&case.name, &replayed.outputs, Direction::Out));
    files.insert(description_path(&case.name), description(case, replayed).into_bytes());
    files
}

/// A case whose node does something else, in words; what came of it is left below `target`.
fn failure(case: &Case, replayed: &Replayed, against: &str, differences: &str) -> String {
    let actual = actual_directory();
    for (path, bytes) in files_of(case, replayed) {
        write(&actual, &path, &bytes);
    }
    let Case { name, shows, rules, .. } = case;
    let path = actual.join(name);
    format!(
        "{name}: {shows} ({rules})\n  against {against}; all that came is {}.*\n{differences}",
        path.display()
    )
}

/// Writes the files of a case, if its node does what is written.
fn bless(case: &Case) -> Result<BTreeSet<String>, String> {
    let replayed = replay(case.setup, &case.inputs, case.ends());
    let differences = against_case(case, &replayed);
    if !differences.is_empty() {
        return Err(failure(case, &replayed, "what is written, so that it is not blessed", &differences));
    }
    let files = files_of(case, &replayed);
    for (path, bytes) in &files {
        write(&directory(), path, bytes);
    }
    Ok(files.into_keys().collect())
}

/// Replays the committed files of a case.
fn check(case: &Case) -> Result<BTreeSet<String>, String> {
    let inputs = read_pcaps(&directory(), &case.name, Direction::In);
    if inputs != case.inputs {
        let mut differences = String::new();
        for link in Link::ALL {
            let due: Vec<_> = of_link(&case.inputs, link).into_iter().map(Due::at).collect();
            compare(Direction::In, link, &due, &of_link(&inputs, link), &mut differences);
        }
        let replayed = replay(case.setup, &case.inputs, case.ends());
        return Err(failure(case, &replayed, "the frames in the files", &differences));
    }
    let replayed = replay(case.setup, &inputs, case.ends());
    for (against, differences) in
        [("what is written", against_case(case, &replayed)), ("the files", against_files(case, &replayed))]
    {
        if !differences.is_empty() {
            return Err(failure(case, &replayed, against, &differences));
        }
    }
    Ok(files_of(case, &replayed).into_keys().collect())
}

#[test]
fn captures() {
    // Of an earlier run.
    let _ = fs::remove_dir_all(actual_directory());
    let blessing = env::var_os("PEARP_BLESS").is_some_and(|value| value == "1");
    let (mut failures, mut files) = (Vec::new(), BTreeSet::new());
    for case in all() {
        match if blessing { bless(&case) } else { check(&case) } {
            Ok(paths) => files.extend(paths),
            Err(failure) => {
                // Its files are not stale: they are looked at once more when it is right.
                let of_case = format!("{}.", case.name);
                files.extend(files_below(&directory()).into_iter().filter(|path| path.starts_with(&of_case)));
                failures.push(failure);
            }
        }
    }
    for path in files_below(&directory()) {
        if files.contains(&path) {
            continue;
        }
        if blessing {
            fs::remove_file(directory().join(&path)).unwrap();
        } else {
            failures.push(format!("captures/{path}: no case has this file\n"));
        }
    }
    let (count, list) = (failures.len(), failures.join("\n"));
    assert!(failures.is_empty(), "{count} failures:\n\n{list}\nPEARP_BLESS=1 writes the files anew");
}

/// A name that is used twice would hide a case, and a counter that there is none of would never be counted.
#[test]
fn cases_are_well_formed() {
    let cases = all();
    assert!(cases.len() >= LEAST, "{} cases", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    let mut counters: BTreeSet<String> = counters_of(&pearp::node::Counters::default()).into_keys().collect();
    counters.extend(DropReason::ALL.iter().map(|reason| reason.name().to_owned()));
    for case in &cases {
        let Case { name, inputs, .. } = case;
        assert!(case.shows.ends_with('.') && !case.rules.is_empty(), "{name} says what it shows");
        assert!(inputs.is_sorted_by_key(|input| input.at), "{name}: steps go back in time");
        for counter in case.counters.keys() {
            assert!(counters.contains(counter), "{name}: there is no counter {counter}");
        }
    }
}

/// What is known to be otherwise than it should be is looked at, too, and not forgotten when it is mended.
#[test]
fn what_was_found_still_stands() {
    for case in found::cases() {
        let differences = against_case(&case, &replay(case.setup, &case.inputs, case.ends()));
        let Case { name, shows, rules, .. } = &case;
        assert!(
            !differences.is_empty(),
            "{name} does what {rules} asks for ({shows}): move it to its subject"
        );
    }
}

/// The comparison finds what it is there for.
#[test]
fn a_wrong_frame_and_a_wrong_counter_are_found() {
    let case = all().into_iter().find(|case| !case.outputs.is_empty()).unwrap();
    let right = replay(case.setup, &case.inputs, case.ends());
    assert_eq!(against_case(&case, &right), "");
    let alter = |alter: fn(&mut Replayed)| {
        let mut wrong = replay(case.setup, &case.inputs, case.ends());
        alter(&mut wrong);
        against_case(&case, &wrong)
    };
    assert!(alter(|it| it.outputs[0].bytes[20] ^= 1).contains("they differ from byte 0x14"));
    assert!(alter(|it| it.outputs[0].at += smoltcp::time::Duration::from_micros(1)).contains("not at"));
    assert!(alter(|it| it.outputs.truncate(0)).contains("missing"));
    assert!(alter(|it| it.outputs.push(it.outputs[0].clone())).contains("too much"));
    assert!(
        alter(|it| _ = it.counters.insert("arp_lost".to_owned(), 1)).contains("arp_lost: expected 0, got 1")
    );
    assert!(alter(|it| it.counters.clear()).contains("received: expected"));
}
