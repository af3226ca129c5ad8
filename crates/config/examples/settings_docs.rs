//! Prints `docs/settings.md`.

#![expect(clippy::print_stdout, reason = "a program whose output is redirected to a file")]

fn main() {
    print!("{}", anygate_config::help::documentation());
}
