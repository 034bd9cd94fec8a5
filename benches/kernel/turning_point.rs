//! Scattered frames: gathered into one piece, or handed over as they lie?
//!
//! What a cohort is to be sent is often not adjacent on the tape. It can be gathered into one buffer, which costs a copy
//! but once for all members; or each send can name the pieces, which the kernel charges for each time. The server always
//! gathers when there is more than one piece (`contiguous` in `src/tape/reader.rs`), also for a cohort of one, which
//! gains nothing from gathering once. So both are asked: a cohort of all members, and as many cohorts of one.

use std::{
    io::{self, IoSlice},
    net::TcpStream,
};

use crate::{
    SEND_MAX,
    cpu::Cores,
    crowd::{Crowd, MEMBERS, Outgoing},
    rounds::Spread,
    table::Table,
};

/// How the frames get to the members of a cohort.
#[derive(Clone, Copy)]
enum Way {
    /// Copied together once, then sent to each.
    GatheredOnce,
    /// Named to the kernel at each send.
    Iovecs,
    /// Copied together for each.
    GatheredForEach,
}

use Way::{GatheredForEach, GatheredOnce, Iovecs};

/// So many frames...
const FRAMES: &[usize] = &[1, 2, 4, 8, 16, 64, 256];

/// ...of so many bytes: powers of two, as [`Log`] wants them.
const SIZES: &[usize] = &[64, 256, 1024];

/// What was measured of so many frames of such a size, in the order of the ways.
struct Cell {
    frames: usize,
    size: usize,
    spreads: Vec<Spread>,
}

pub fn answer(cores: Cores) -> io::Result<()> {
    let mut crowd = Crowd::new(cores)?;
    let log = Log::new();
    let all = measure(&mut crowd, &log, MEMBERS, &[GatheredOnce, Iovecs, GatheredForEach]);
    let columns = ["frames", "bytes each", "gathered once", "iovecs", "ratio", "gathered for each", "ratio"];
    print(&columns, &all, &format!("Scattered frames to a cohort of {MEMBERS}: CPU time for each member"));
    println!();
    for &size in SIZES {
        println!(
            "- {size} B: iovecs cost more than gathering once {}, and more than gathering for each {}.",
            from(turning_point(&all, size, 0, 1)),
            from(turning_point(&all, size, 2, 1))
        );
    }
    let one = measure(&mut crowd, &log, 1, &[GatheredOnce, Iovecs]);
    let columns = ["frames", "bytes each", "gathered", "iovecs", "ratio"];
    print(&columns, &one, &format!("Scattered frames to {MEMBERS} cohorts of one: CPU time for each member"));
    println!();
    for &size in SIZES {
        println!("- {size} B: iovecs cost more than gathering {}.", from(turning_point(&one, size, 0, 1)));
    }
    println!("- {}", verdict(&one));
    crowd.print_doubts();
    Ok(())
}

/// Measures all numbers and sizes of frames with cohorts of so many members, each of which gets frames of its own.
fn measure(crowd: &mut Crowd, log: &Log, members: usize, ways: &[Way]) -> Vec<Cell> {
    let (mut buffer, mut slices, mut at) = (Vec::new(), Vec::new(), 0);
    let mut cells = Vec::new();
    for &size in SIZES {
        for &frames in FRAMES {
            let spreads = crowd.interleaved(ways, |way, crowd, out| {
                for cohort in crowd.chunks(members) {
                    deliver(way, log.scattered(at, frames, size), size, cohort, out, &mut buffer, &mut slices);
                    at += 2 * frames;
                }
            });
            cells.push(Cell { frames, size, spreads });
        }
    }
    cells
}

/// Sends frames of one size to each of a cohort.
fn deliver<'l>(
    way: Way,
    frames: impl Iterator<Item = &'l [u8]> + Clone,
    size: usize,
    cohort: &[TcpStream],
    out: &mut Outgoing,
    buffer: &mut Vec<u8>,
    slices: &mut Vec<IoSlice<'l>>,
) {
    match way {
        GatheredOnce => {
            gather(frames, buffer);
            cohort.iter().for_each(|member| out.send_in_pieces(member, buffer, SEND_MAX));
        }
        GatheredForEach => {
            for member in cohort {
                gather(frames.clone(), buffer);
                out.send_in_pieces(member, buffer, SEND_MAX);
            }
        }
        Iovecs => {
            slices.clear();
            slices.extend(frames.map(IoSlice::new));
            for member in cohort {
                slices.chunks(SEND_MAX / size).for_each(|piece| out.send_slices(member, piece));
            }
        }
    }
}

fn gather<'l>(frames: impl Iterator<Item = &'l [u8]>, buffer: &mut Vec<u8>) {
    buffer.clear();
    frames.for_each(|frame| buffer.extend_from_slice(frame));
}

/// Frames one after another, as on the tape.
struct Log {
    bytes: Vec<u8>,
}

impl Log {
    /// As much as a turn finds new when it is busy, and a cache still has. A power of two, so that finding a frame is cheap.
    const LEN: usize = 1 << 20;

    fn new() -> Log {
        Log { bytes: (0..Log::LEN).map(|nth| nth as u8).collect() }
    }

    /// Every other frame from the `first` on; beyond the end, it begins again.
    fn scattered(&self, first: usize, frames: usize, size: usize) -> impl Iterator<Item = &[u8]> + Clone {
        debug_assert!(size.is_power_of_two() && 2 * frames * size <= Log::LEN, "they would overlap");
        (0..frames).map(move |nth| {
            let at = ((first + 2 * nth) * size) & (Log::LEN - 1);
            &self.bytes[at..at + size]
        })
    }
}

fn print(columns: &[&str], cells: &[Cell], question: &str) {
    let mut table = Table::new(columns);
    for Cell { frames, size, spreads } in cells {
        let mut row = vec![frames.to_string(), size.to_string(), spreads[0].to_string()];
        row.extend(spreads[1..].iter().flat_map(|spread| [spread.to_string(), spread.ratio(&spreads[0])]));
        table.row(row);
    }
    table.print(question);
}

/// From how many frames of a size on the way `dear` costs more than the way `cheap`, by the medians; None if never.
fn turning_point(cells: &[Cell], size: usize, cheap: usize, dear: usize) -> Option<usize> {
    let turned = |cell: &&Cell| cell.spreads[dear].median > cell.spreads[cheap].median;
    let last_first = cells.iter().rev().filter(|cell| cell.size == size);
    last_first.take_while(turned).last().map(|cell| cell.frames)
}

fn from(frames: Option<usize>) -> String {
    frames.map_or("at no number of frames measured".into(), |frames| match frames {
        1 => "always".into(),
        frames => format!("from {frames} frames on"),
    })
}

/// Whether it is right to gather for a cohort of one, too, when there is more than one piece.
fn verdict(cells: &[Cell]) -> String {
    let scattered = || cells.iter().filter(|cell| cell.frames > 1);
    let ratios = || scattered().map(|cell| cell.spreads[0].median / cell.spreads[1].median);
    let clearly = |dear: usize, cheap: usize| {
        let list: Vec<String> = scattered()
            .filter(|cell| cell.spreads[dear].is_clearly_above(&cell.spreads[cheap]))
            .map(|cell| format!("{} of {} B", cell.frames, cell.size))
            .collect();
        if list.is_empty() { "nowhere".into() } else { list.join(", ") }
    };
    format!(
        "Gathering two frames or more for one member costs × {:.2} to × {:.2} of what iovecs cost. Clearly dearer \
         (the ranges don't touch): {}. Clearly cheaper: {}.",
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
        clearly(0, 1),
        clearly(1, 0)
    )
}
