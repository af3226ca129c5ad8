//! Prints `python/anygate/options.py`.

#![expect(clippy::print_stdout, reason = "a program whose output is redirected to a file")]

fn main() {
    print!("{}", anygate_config::python_types::python_types());
}
