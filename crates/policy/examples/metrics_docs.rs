//! Reads `docs/guide/admin.md` and prints it with the table of metrics as it is now.

#![expect(clippy::print_stdout, reason = "a program whose output is redirected to a file")]

use std::io::{self, Read};

use anygate_policy::metrics_text;

const BEGIN: &str = "<!-- metrics, made by make docs -->\n";
const END: &str = "<!-- end of metrics -->\n";

fn main() -> io::Result<()> {
    let mut page = String::new();
    io::stdin().read_to_string(&mut page)?;
    let missing = || io::Error::other("the page has no place for the table of metrics");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    print!("{before}{BEGIN}\n{}\n{END}{after}", metrics_text::documentation());
    Ok(())
}
