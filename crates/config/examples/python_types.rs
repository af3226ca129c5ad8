//! Prints `python/anygate/options.py`.

fn main() {
    print!("{}", anygate_config::python_types::python_types());
}
