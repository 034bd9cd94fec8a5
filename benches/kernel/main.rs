//! What the kernel charges for what a server does all day, as figures that anybody can repeat. `cargo bench --features bench --bench kernel`
//!
//! The server's shape follows from a few prices: a send, a frame more in it, a connection, a waking. Each module here asks
//! for one of them, with little beside the system calls, and prints a markdown table: scattered frames gathered or handed over as they
//! lie ([`turning_point`]), how much one send should carry ([`send_size`]), what a connection costs at least ([`set_up`]),
//! what waking a thread costs ([`waking`]), and whether huge pages help ([`huge_pages`]).
//!
//! One thread pinned to a core does what is asked about, another on another core is everybody else: it reads what was sent,
//! connects, or sleeps. What counts is the first one's CPU time, in nanoseconds. The ways that are compared take turns
//! in one run, so that a change of the machine's mood hits all of them. Nothing may be open but loopback, and it ends by
//! itself in about a minute.
//!
//! ```sh
//! cargo bench --features bench --bench kernel                        # all
//! cargo bench --features bench --bench kernel -- waking send-size    # some
//! ```

mod cpu;
mod crowd;
mod huge_pages;
mod rounds;
mod send_size;
mod set_up;
mod table;
mod turning_point;
mod waking;

use std::{
    env, fs, io, panic,
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use cpu::Cores;

/// What one send carries at most: `SEND_MAX` of the server's fan-out, for which [`send_size`] gives the reason.
const SEND_MAX: usize = 65_483;

/// Something that is asked of the kernel: what it is called, and what answers it.
type Question = (&'static str, fn(Cores) -> io::Result<()>);

const QUESTIONS: &[Question] = &[
    ("turning-point", turning_point::answer),
    ("send-size", send_size::answer),
    ("set-up", set_up::answer),
    ("waking", waking::answer),
    ("huge-pages", huge_pages::answer),
];

/// By when it must have ended, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let questions = asked()?;
    let cores = Cores::choose()?;
    end_with_any_thread();
    cores.pin_first();
    println!(
        "Linux {}, {}; what is measured on core {}, the other side on core {}. CPU time in nanoseconds: the median of {} \
         rounds (lowest to highest), and its ratio to the first.",
        read("/proc/sys/kernel/osrelease"),
        processor(),
        cores.first.id,
        cores.second.id,
        rounds::ROUNDS,
    );
    for (name, answer) in questions {
        answer(cores).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// The questions that were named, or all.
fn asked() -> Result<Vec<&'static Question>, String> {
    let names: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(unknown) = names.iter().find(|name| QUESTIONS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = QUESTIONS.iter().map(|(known, _)| *known).collect();
        return Err(format!("{unknown}: there are {}", known.join(", ")));
    }
    Ok(QUESTIONS.iter().filter(|(known, _)| names.is_empty() || names.iter().any(|name| name == known)).collect())
}

/// A thread that panics would leave the others waiting for it; and nothing here may go on for ever.
fn end_with_any_thread() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        say(what);
        process::exit(101);
    }));
    thread::spawn(|| {
        thread::sleep(PATIENCE);
        eprintln!("kernel: not done after {} s", PATIENCE.as_secs());
        process::exit(1);
    });
}

fn processor() -> String {
    let all = read("/proc/cpuinfo");
    let model = all.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unnamed processor", |(_, name)| name).to_owned()
}

/// What a file of the kernel's says; nothing, if it isn't there.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
