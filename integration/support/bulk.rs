//! Large transfers of which every byte is compared.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lab::Lab;

/// A prime, so that no two segments of a stream are alike.
const PATTERN: usize = 1_048_573;
/// Bytes of one call; the length of a transfer is a multiple.
pub(crate) const CHUNK: usize = 100_000;
/// On a machine that is busy with other things, a stream may rest for so long.
pub(crate) const STALLED: Duration = Duration::from_secs(60);

/// Random bytes, again and again.
pub(crate) fn pattern() -> &'static [u8] {
    static PATTERN_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN_BYTES.get_or_init(|| {
        let mut bytes = vec![0; PATTERN + CHUNK];
        let (once, again) = bytes.split_at_mut(PATTERN);
        ChaCha8Rng::seed_from_u64(1).fill_bytes(once);
        again.copy_from_slice(&once[..CHUNK]);
        bytes
    })
}

/// Sends chunks while `more` is true of the number of bytes that were sent.
pub(crate) fn send(mut stream: &TcpStream, more: impl Fn(usize) -> bool) {
    let mut sent = 0;
    while more(sent) {
        stream.write_all(&pattern()[sent % PATTERN..][..CHUNK]).expect("the stream goes on");
        sent += CHUNK;
    }
    stream.shutdown(Shutdown::Write).expect("it is open");
}

/// Compares every byte until the end, and tells how many have come; so it does `heard` each time.
pub(crate) fn receive(mut stream: &TcpStream, mut heard: impl FnMut(usize)) -> usize {
    let mut space = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let count = stream.read(&mut space).expect("the stream goes on");
        if count == 0 {
            return received;
        }
        assert!(space[..count] == pattern()[received % PATTERN..][..count], "differs after byte {received}");
        received += count;
        heard(received);
    }
}

/// Who connects to whom.
pub(crate) type Pair<'a> = (&'a str, &'a str, &'a str);

/// A stream of each pair: both of its ends.
#[track_caller]
pub(crate) fn connect(lab: &Lab, pairs: &[Pair<'_>]) -> Vec<[TcpStream; 2]> {
    let ends = pairs.iter().enumerate().map(|(number, (client, server, address))| {
        // A port of the server's own set, if it has one.
        let first = lab.ports(server).first().map_or(5000, |range| range.0);
        let port = first + 100 + number as u16;
        let listener = lab.inside(server, || TcpListener::bind((*address, port)).unwrap());
        let near = lab.inside(client, || TcpStream::connect((*address, port)).unwrap());
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(STALLED)).unwrap();
            stream.set_write_timeout(Some(STALLED)).unwrap();
        }
        [near, far]
    });
    ends.collect()
}

/// Streams `len` bytes both ways between all pairs at the same time.
#[track_caller]
pub(crate) fn exchange(lab: &Lab, pairs: &[Pair<'_>], len: usize) {
    let streams = connect(lab, pairs);
    thread::scope(|scope| {
        for end in streams.iter().flatten() {
            scope.spawn(move || send(end, |sent| sent < len));
            scope.spawn(move || assert_eq!(receive(end, |_| ()), len));
        }
    });
}
