//! How long each operation takes, on this machine and today. `cargo bench --features bench --bench timings -- turn/`
//!
//! For comparing two versions, one after the other, on a quiet machine; what must not slip is guarded by `instructions`.

mod operations;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use operations::{Turn, Work};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    for operation in operations::OPERATIONS {
        let (group, name) = operation.name.split_once('/').expect("a name is a group and what in it");
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(operation.units.0));
        let mut ready = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            // Made ready only if it was asked for, and once.
            match ready.get_or_insert_with(operation.prepare) {
                Work::Alone(run) => bencher.iter(run),
                Work::Turn(turn) => bencher.iter_custom(|times| (0..times).map(|_| time(turn)).sum()),
            }
        });
        group.finish();
    }
    criterion.final_summary();
}

fn time(turn: &mut Turn) -> Duration {
    turn.happen();
    let begun = Instant::now();
    turn.take();
    begun.elapsed()
}
