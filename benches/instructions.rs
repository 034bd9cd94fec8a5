//! How many instructions each operation is, held against `benches/instructions.json`.
//!
//! Counted by callgrind, which simulates a processor: the same program gives the same figures on a busy machine and on a
//! quiet one, so a change of a few per cent is a change of the program. What instructions can't show (caches, system calls,
//! waiting) `timings` and `scripts/compare` do.
//!
//! Each step has a budget beside its count ([`budget`]). It fails with a table when a step has grown, until that is renewed
//! within the budget; what has become less is written down by itself, except by CI (`CI=true`), which leaves its tree as it is and
//! only says so.
//!
//! Another compiler makes other instructions of the same source. Where the tools are not those that the figures were
//! made with, it shows how far they are from them, and is skipped.
//!
//! ```sh
//! scripts/guard                    # compare all
//! scripts/guard turn/ mask/        # some
//! scripts/guard --renew            # take what has grown, within the budgets
//! ```

mod budget;
mod operations;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    sync::Mutex,
};

use budget::{Baseline, TOLERANCE, Verdict};
use operations::{OPERATIONS, Operation, Work};

/// The figures that are held to, relative to the package.
const BASELINE: &str = "benches/instructions.json";

/// Where callgrind's output goes, for `callgrind_annotate`.
const OUTPUT: &str = "target/instructions";

/// Says which one operation to run: this program under callgrind.
const RUN: &str = "STENTOR_BENCH_RUN";

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

/// Holds the counts against the file, with a table, and writes down what has become less.
fn compare(operations: &[&Operation], now: &BTreeMap<String, u64>) -> Result<(), String> {
    let mut baseline = read()?;
    let (tools, same) = (tools(), tools() == baseline.tools);
    println!("{:<24} {:>12} {:>12} {:>9} {:>12}", "instructions", "baseline", "now", "change", "budget");
    for operation in operations {
        println!("{}", row(&baseline, operation.name, now[operation.name], same));
    }
    if !same {
        println!(
            "skipped: instruction counts: they were made with {}; here it is {}",
            baseline.tools.join(", "),
            tools.join(", ")
        );
        return Ok(());
    }
    let faults = baseline.faults(&names());
    if !faults.is_empty() {
        return Err(format!("{BASELINE}: {}", faults.join("\n  ")));
    }
    let having = |verdict| {
        let names = operations.iter().map(|one| one.name).filter(|name| baseline.judge(name, now[*name]) == verdict);
        names.collect::<Vec<_>>()
    };
    let (refused, grown, new) = (having(Verdict::Refuse), having(Verdict::Renew), having(Verdict::Enter));
    if baseline.lower(now) {
        // CI's tree is not kept; and what it tests must stay what was submitted.
        if env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false") {
            println!("note: some have become less: scripts/guard writes it down, where CI is not set");
        } else {
            write(&baseline)?;
            println!("note: some have become less, which is in {BASELINE} now");
        }
    }
    let mut wrong = Vec::new();
    for (names, what) in [
        (refused, "beyond the budget: make it cheaper, or raise the budget there and say in its reason what it buys"),
        (grown, "has grown: if it is worth it, scripts/guard --renew, and say why in the commit"),
        (new, "new: scripts/guard --renew, then write its reason there"),
    ] {
        if !names.is_empty() {
            wrong.push(format!("{}: {what}", names.join(", ")));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "not what {BASELINE} says, by more than {:.0} %\n  {}\n  where they go: callgrind_annotate {OUTPUT}/NAME.out",
        TOLERANCE * 100.0,
        wrong.join("\n  ")
    ))
}

/// A line of the table.
fn row(baseline: &Baseline, name: &str, now: u64, same_tools: bool) -> String {
    let Some(step) = baseline.steps.get(name) else {
        return format!("{name:<24} {:>12} {now:>12} {:>9} {:>12}", "-", "new", "-");
    };
    let verdict = match baseline.judge(name, now) {
        _ if !same_tools => "",
        Verdict::Refuse => "  BEYOND ITS BUDGET",
        Verdict::Renew => "  GROWN",
        Verdict::Lower => "  less",
        Verdict::Keep | Verdict::Enter => "",
    };
    let change = (now as f64 / step.instructions as f64 - 1.0) * 100.0;
    format!("{name:<24} {:>12} {now:>12} {change:>+7.1} % {:>12}{verdict}", step.instructions, step.budget)
}

/// Writes the figures that are held to from now on; those that were not asked for stay.
fn renew(operations: &[&Operation], now: &BTreeMap<String, u64>) -> Result<(), String> {
    let mut baseline = read()?;
    let known = names();
    baseline.steps.retain(|name, _| known.contains(&name.as_str()));
    for operation in operations {
        let (count, (units, unit)) = (now[operation.name], operation.units);
        println!("{:<24} {count:>12}  {:>9.1} a {unit}", operation.name, count as f64 / units as f64);
    }
    baseline.renew(tools(), now).map_err(|refused| format!("{BASELINE} stays as it is\n  {}", refused.join("\n  ")))?;
    write(&baseline)?;
    for fault in baseline.faults(&known) {
        println!("note: {BASELINE}: {fault}");
    }
    Ok(())
}

fn read() -> Result<Baseline, String> {
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("reading {BASELINE}: {error}"))?;
    Baseline::parse(&text).map_err(|error| format!("{BASELINE}: {error}"))
}

fn write(baseline: &Baseline) -> Result<(), String> {
    fs::write(BASELINE, baseline.to_text()).map_err(|error| format!("writing {BASELINE}: {error}"))
}

/// What is counted.
fn names() -> Vec<&'static str> {
    OPERATIONS.iter().filter(|one| one.counted).map(|one| one.name).collect()
}

/// What the figures depend on beside the source: the compilers (that of C makes the ciphers), the counter, and the vector instructions
/// that libraries choose by.
fn tools() -> Vec<String> {
    let version = |program: &str| {
        let said = Command::new(program).arg("--version").output();
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
        said.ok().and_then(|said| said.lines().next().map(str::to_owned)).unwrap_or_else(|| program.to_owned())
    };
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    vec![version("rustc"), version("cc"), version("valgrind"), format!("{} {vectors}", env::consts::ARCH)]
}
