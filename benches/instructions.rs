//! How many instructions each operation is, held against `benches/instructions.json`.
//!
//! Counted by callgrind, which simulates a processor: the same program gives the same figures on a busy machine and on a
//! quiet one, so a change of a few per cent is a change of the program. It fails with a table when one has grown by more
//! than [`TOLERANCE`]. What instructions can't show (caches, system calls, waiting) `timings` and `scripts/compare` do.
//!
//! Another compiler makes other instructions of the same source. Where the tools are not those that the figures were
//! made with, only what has grown by more than [`TOLERANCE_ELSEWHERE`] fails; the figures should then be made anew.
//!
//! ```sh
//! scripts/guard                    # compare all
//! scripts/guard turn/ mask/        # some
//! scripts/guard --renew            # make the figures anew
//! ```

mod operations;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    sync::Mutex,
};

use operations::{OPERATIONS, Operation, Work};
use serde::{Deserialize, Serialize};

/// More growth than this fails.
const TOLERANCE: f64 = 0.03;

/// The same, with other tools than the figures were made with.
const TOLERANCE_ELSEWHERE: f64 = 0.30;

/// The figures that are held to, relative to the package.
const BASELINE: &str = "benches/instructions.json";

/// Where callgrind's output goes, for `callgrind_annotate`.
const OUTPUT: &str = "target/instructions";

/// Says which one operation to run: this program under callgrind.
const RUN: &str = "STENTOR_BENCH_RUN";

/// Figures, and the tools that they were made with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    tools: Vec<String>,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    if let Ok(name) = env::var(RUN) {
        let operation = OPERATIONS.iter().find(|operation| operation.name == name).expect("an operation's name");
        run(operation);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (options, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let asked = |operation: &&Operation| names.is_empty() || names.iter().any(|name| operation.name.contains(*name));
    let operations: Vec<&Operation> = OPERATIONS.iter().filter(|one| one.counted).filter(asked).collect();
    let outcome = match options.as_slice() {
        [] => count_all(&operations).and_then(|now| compare(&operations, &now)),
        [option] if *option == "--renew" => count_all(&operations).and_then(|now| renew(&operations, &now)),
        other => Err(format!("{other:?}: only --renew and parts of operations' names are understood")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does the work of an operation, under callgrind. The first two times fill caches and grow buffers.
fn run(operation: &Operation) {
    match (operation.prepare)() {
        Work::Alone(mut run) => {
            (0..2).for_each(|_| run());
            count_instructions(&mut run);
        }
        Work::Turn(mut turn) => {
            for _ in 0..2 {
                turn.happen();
                turn.take();
            }
            turn.happen();
            count_instructions(&mut || turn.take());
        }
    }
}

/// What callgrind counts: it is told to by this function's name.
#[inline(never)]
fn count_instructions(run: &mut dyn FnMut()) {
    run();
    // So that the call isn't the function's last act, which would leave nothing to be counted.
    std::hint::black_box(());
}

/// Counts, on as many cores as there are.
fn count_all(operations: &[&Operation]) -> Result<BTreeMap<String, u64>, String> {
    fs::create_dir_all(OUTPUT).map_err(|error| format!("making {OUTPUT}: {error}"))?;
    let waiting = Mutex::new(operations.iter());
    let counts = Mutex::new(Ok(BTreeMap::new()));
    let work = || {
        while let Some(operation) = { waiting.lock().unwrap().next() } {
            let count = count(operation.name);
            let mut counts = counts.lock().unwrap();
            match (count, &mut *counts) {
                (Ok(count), Ok(counts)) => drop(counts.insert(operation.name.to_owned(), count)),
                (Err(error), counts) => *counts = Err(error),
                _ => {}
            }
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)));
    });
    counts.into_inner().unwrap()
}

/// Instructions of one run of an operation.
fn count(name: &str) -> Result<u64, String> {
    let out = Path::new(OUTPUT).join(format!("{}.out", name.replace('/', "-")));
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let ended = Command::new("valgrind")
        // An environment of another size would shift the stack.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env(RUN, name)
        .args(["--tool=callgrind", "--toggle-collect=*count_instructions*", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .output()
        .map_err(|error| format!("valgrind could not be started: {error}"))?;
    if !ended.status.success() {
        return Err(format!("{name} failed under valgrind: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    let text = fs::read_to_string(&out).map_err(|error| format!("reading {}: {error}", out.display()))?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let count = totals.and_then(|totals| totals.split(' ').next()?.parse().ok()).unwrap_or(0);
    if count == 0 { Err(format!("{name}: callgrind counted nothing, see {}", out.display())) } else { Ok(count) }
}

/// Prints the table, and fails if something has grown too much.
fn compare(operations: &[&Operation], now: &BTreeMap<String, u64>) -> Result<(), String> {
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("reading {BASELINE}: {error}"))?;
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| format!("{BASELINE}: {error}"))?;
    let tools = tools();
    let mut tolerance = TOLERANCE;
    if tools != baseline.tools {
        tolerance = TOLERANCE_ELSEWHERE;
        println!(
            "note: the figures were made with {}; here it is {}: only growth by more than {:.0} % fails",
            baseline.tools.join(", "),
            tools.join(", "),
            tolerance * 100.0
        );
    }
    println!("{:<24} {:>12} {:>12} {:>9}", "instructions", "baseline", "now", "change");
    let (mut grown, mut shrunk) = (Vec::new(), false);
    for operation in operations {
        let (name, now) = (operation.name, now[operation.name]);
        let Some(&was) = baseline.instructions.get(name) else {
            println!("{name:<24} {:>12} {now:>12} {:>9}", "-", "new");
            grown.push(name);
            continue;
        };
        let change = now as f64 / was as f64 - 1.0;
        let verdict = if change > tolerance { "  TOO MANY" } else { "" };
        println!("{name:<24} {was:>12} {now:>12} {:>+8.1} %{verdict}", change * 100.0);
        if change > tolerance {
            grown.push(name);
        }
        shrunk |= change < -TOLERANCE;
    }
    let gone: Vec<&String> =
        baseline.instructions.keys().filter(|known| OPERATIONS.iter().all(|one| one.name != **known)).collect();
    if !gone.is_empty() {
        return Err(format!("{BASELINE} has {gone:?}, which is measured no more: scripts/guard --renew"));
    }
    if !grown.is_empty() {
        return Err(format!(
            "{} of {} operations have grown by more than {:.0} %, or are new: {}\n  where they go: callgrind_annotate \
             {OUTPUT}/NAME.out\n  if it is worth it: scripts/guard --renew, and say why in the commit",
            grown.len(),
            operations.len(),
            tolerance * 100.0,
            grown.join(", ")
        ));
    }
    if shrunk {
        println!("some have shrunk: scripts/guard --renew keeps it that way");
    }
    Ok(())
}

/// Writes the figures that are held to from now on; those that were not asked for stay.
fn renew(operations: &[&Operation], now: &BTreeMap<String, u64>) -> Result<(), String> {
    let all = OPERATIONS.iter().filter(|operation| operation.counted).count() == operations.len();
    let old = fs::read_to_string(BASELINE).ok().and_then(|text| serde_json::from_str::<Baseline>(&text).ok());
    let mut instructions = old.filter(|_| !all).unwrap_or_default().instructions;
    instructions.extend(now.clone());
    for operation in operations {
        let (count, (units, unit)) = (now[operation.name], operation.units);
        println!("{:<24} {count:>12}  {:>9.1} a {unit}", operation.name, count as f64 / units as f64);
    }
    let mut text = serde_json::to_string_pretty(&Baseline { tools: tools(), instructions }).expect("plain values");
    text.push('\n');
    fs::write(BASELINE, text).map_err(|error| format!("writing {BASELINE}: {error}"))
}

/// What the figures depend on beside the source: the compiler, the counter, and the vector instructions that libraries
/// choose by.
fn tools() -> Vec<String> {
    let version = |program: &str| {
        let said = Command::new(program).arg("--version").output();
        said.map_or_else(|_| program.to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    vec![version("rustc"), version("valgrind"), format!("{} {vectors}", env::consts::ARCH)]
}
