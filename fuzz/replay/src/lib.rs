//! Fuzz targets without a fuzzer: on the corpora of `fuzz/`, and on seeded mutations of them. For tests only.
//!
//! A failure prints the seed: with `PGFLEET_SEED=…` in the environment the test runs that one again.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// No run may have more allocated at one time: so much for each byte of its input, and so much in any case.
const BYTES_PER_INPUT_BYTE: u64 = 64;

/// How far a target is taken.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// How many mutations are tried.
    pub mutations: u64,
    /// How many bytes a run may have allocated at one time whatever its input.
    pub bytes: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { mutations: 100_000, bytes: 128 * 1024 }
    }
}

/// Runs the target of that name on its corpus and the mutations. Panics when it does.
pub fn survives(target: &str, extent: Extent, run: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "no corpus for {target}");
    for input in &corpus {
        check(run, input, extent);
    }
    let seeds = std::env::var("PGFLEET_SEED").map_or(0..extent.mutations, |seed| {
        let seed: u64 = seed.parse().unwrap();
        seed..seed + 1
    });
    for seed in seeds {
        let _said = Said(format!("PGFLEET_SEED={seed} of {target}"));
        check(run, &mutation(&corpus, &mut SmallRng::seed_from_u64(seed)), extent);
    }
}

fn check(run: fn(&[u8]), input: &[u8], extent: Extent) {
    let allocated = allocation_counter::measure(|| run(input));
    let most = extent.bytes + BYTES_PER_INPUT_BYTE * input.len() as u64;
    assert!(allocated.bytes_max <= most, "{} bytes allocated for an input of {}", allocated.bytes_max, input.len());
}

/// Printed when the test panics while it lives.
struct Said(String);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {}", self.0);
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One of the corpus with a few changes.
fn mutation(corpus: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let pick = |random: &mut SmallRng| corpus[random.random_range(0..corpus.len())].clone();
    let mut bytes = pick(random);
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.random_range(0..bytes.len());
        let end = random.random_range(at..=bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.extend_from_within(at..end),
            5 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().copied());
            }
            // A length field, as likely as not.
            6 if at + 4 <= bytes.len() => {
                let edge = [0_u32, 3, 4, 5, 255, 65_535, 65_536, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                bytes[at..at + 4].copy_from_slice(&edge[random.random_range(0..edge.len())].to_be_bytes());
            }
            _ => bytes.truncate(end),
        }
    }
    bytes
}
