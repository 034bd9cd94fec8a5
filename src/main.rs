//! The `stentor` binary. What it does is in the library (`src/program/`), where the compiler sees what nobody uses.

use std::process::ExitCode;

fn main() -> ExitCode {
    stentor::program::main()
}
