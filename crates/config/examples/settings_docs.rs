//! Prints `docs/settings.md`.

fn main() {
    print!("{}", anygate_config::help::documentation());
}
