//! Findings, and how they are shown.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Something that will hurt, and its cure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about: an option, or a directive of the file.
    pub topic: String,
    /// File in which it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What will happen.
    pub problem: String,
    /// What to write or to do.
    pub cure: String,
}

impl Finding {
    /// Makes one that is not about a file.
    pub fn new(topic: &str, problem: impl Into<String>, cure: impl Into<String>) -> Finding {
        let (problem, cure) = (problem.into(), cure.into());
        Finding { topic: topic.to_owned(), problem, cure, ..Finding::default() }
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which it was looked for.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Returns two lines for each finding, and how many there are.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { topic, file, line, problem, cure } in &self.findings {
            if let Some(file) = file {
                let _ = write!(text, "{file}:");
                let _ = line.map(|line| write!(text, "{line}:"));
                text.push(' ');
            }
            let _ = writeln!(text, "{topic}: {problem}\n    cure: {cure}");
        }
        let _ = match self.findings.len() {
            0 => writeln!(text, "nothing found"),
            1 => writeln!(text, "1 finding"),
            count => writeln!(text, "{count} findings"),
        };
        text
    }

    /// Returns the same for programs.
    pub fn json(&self) -> String {
        // Texts and numbers can always be written.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
