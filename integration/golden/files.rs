//! The files of a capture: a description with all counters, and one pcap file for each link and direction in which
//! there are frames, for Wireshark and tshark.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use pearp::wire::Medium;
use smoltcp::time::Instant;

use crate::case::{Case, Timed};
use crate::replay::Replayed;
use crate::topology::Link;
use crate::words;

/// Bytes recorded of a frame: all.
const SNAPLEN: u32 = 65_549;

/// Where the captures are in the repository.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/golden/captures")
}

/// Where a failed replay leaves what it got.
pub(crate) fn actual_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the node.
    In,
    /// From the node.
    Out,
}

impl Direction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

pub(crate) fn pcap_path(name: &str, link: Link, direction: Direction) -> String {
    format!("{name}.{link}.{}.pcap", direction.name())
}

pub(crate) fn description_path(name: &str) -> String {
    format!("{name}.toml")
}

/// The files of the frames of one direction, by their path: none for a link without any.
pub(crate) fn pcaps(name: &str, frames: &[Timed], direction: Direction) -> BTreeMap<String, Vec<u8>> {
    let of_link = |link| frames.iter().filter(move |frame| frame.link == link);
    let links = Link::ALL.into_iter().filter(|link| of_link(*link).next().is_some());
    links.map(|link| (pcap_path(name, link, direction), pcap(link, of_link(link)))).collect()
}

fn pcap<'a>(link: Link, frames: impl Iterator<Item = &'a Timed>) -> Vec<u8> {
    let datalink = match link.medium() {
        Medium::Ethernet => DataLink::ETHERNET,
        Medium::Ip => DataLink::RAW,
    };
    let header = PcapHeader {
        snaplen: SNAPLEN,
        datalink,
        ts_resolution: TsResolution::MicroSecond,
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for frame in frames {
        let at = Duration::from_micros(frame.at.total_micros().unsigned_abs());
        writer.write_packet(&PcapPacket::new(at, frame.bytes.len() as u32, &frame.bytes)).unwrap();
    }
    writer.into_writer()
}

/// The frames of one direction in the files of a directory, in the order of time.
pub(crate) fn read_pcaps(directory: &Path, name: &str, direction: Direction) -> Vec<Timed> {
    let mut frames = Vec::new();
    for link in Link::ALL {
        let Ok(bytes) = fs::read(directory.join(pcap_path(name, link, direction))) else { continue };
        let mut reader = PcapReader::new(&bytes[..]).expect("a pcap file");
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole pcap file");
            let at = Instant::from_micros(i64::try_from(packet.timestamp.as_micros()).unwrap());
            frames.push(Timed { at, link, bytes: packet.data.into_owned() });
        }
    }
    frames.sort_by_key(|frame| frame.at);
    frames
}

/// The description: what the case shows, every frame in words, and every counter that changes.
pub(crate) fn description(case: &Case, replayed: &Replayed) -> String {
    let mut frames: Vec<_> = case
        .inputs
        .iter()
        .map(|frame| (Direction::In, frame))
        .chain(replayed.outputs.iter().map(|frame| (Direction::Out, frame)))
        .collect();
    // What was given comes before what it caused.
    frames.sort_by_key(|(_, frame)| frame.at);
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").unwrap();
    line("# Written by PEARP_BLESS=1 cargo test --test golden, from integration/golden/cases.".to_owned());
    line(format!("shows = {:?}", case.shows));
    line(format!("rules = {:?}", case.rules));
    line(format!("node = {:?}", case.setup.describe()));
    line(format!("ends = \"{}\"", words::time(case.ends()).trim_start()));
    line("frames = [".to_owned());
    for (direction, frame) in frames {
        let Timed { at, link, bytes } = frame;
        let said = words::describe(link.medium(), bytes);
        let direction = direction.name();
        line(format!("    {:?},", format!("{} {direction:<3} {link:<7} {said}", words::time(*at))));
    }
    line("]".to_owned());
    line("# All others stay.".to_owned());
    line("[counters]".to_owned());
    for (name, count) in &replayed.counters {
        line(format!("{name} = {count}"));
    }
    text
}

/// The counters that a description has.
pub(crate) fn counters_in(description: &str) -> Result<BTreeMap<String, u64>, String> {
    #[derive(serde::Deserialize)]
    struct Described {
        counters: BTreeMap<String, u64>,
    }
    toml::from_str::<Described>(description)
        .map(|described| described.counters)
        .map_err(|error| error.to_string())
}

/// Every file below a directory, by its path from there.
pub(crate) fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let path = path.strip_prefix(directory).expect("it is below");
                found.push(path.to_str().expect("a name in UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn write(directory: &Path, path: &str, bytes: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
