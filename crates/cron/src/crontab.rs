//! The text of a web2py crontab: what its lines say. Reading files and finding applications is the folder's
//! (`folder`); the time fields are in [`crate::fields`].
//!
//! A line has seven fields, `minute hour day month weekday user command`, or a nickname, a user and a command. The
//! user must be there and means nothing. The rules are those of gluon/newcron.py; a comment that says "web2py" means
//! that file.

use std::ffi::OsString;
use std::fmt;

use anygate_config::quoting::{self, Unfinished};

use crate::fields::{self, Field, Fields, Oddity, StepOfZero};

/// The nicknames, in web2py's order, with the five fields they stand for.
const NICKNAMES: [(&str, &str); 8] = [
    ("@reboot", "-1 * * * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// One line that says when to run what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the line in its file, from 1.
    pub number: usize,
    /// The line, with single spaces between its fields: what a job is known by when the file changes around it.
    pub text: String,
    /// Schedule as it was written.
    pub schedule: String,
    /// Parsed schedule.
    pub when: When,
    /// The user, who means nothing.
    pub user: String,
    /// Command to run.
    pub command: Command,
    /// Differences from Unix cron that may surprise the author of the line.
    pub oddities: Vec<Oddity>,
}

/// Times at which a line runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Once, when the scheduler starts.
    Start,
    /// In these minutes of local time.
    Minutes(Fields),
}

/// Command of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A function of a controller: `*controller/function`; with two asterisks without the models.
    Function {
        /// `controller/function`.
        name: String,
        /// Whether the models are run before.
        models: bool,
    },
    /// A file of Python in the application's environment: `*path/file.py`; with two asterisks without the models.
    File {
        /// The path, seen from web2py's folder.
        path: String,
        /// Whether the models are run before.
        models: bool,
    },
    /// A program with its arguments, without a shell. There is at least the program.
    Program(Vec<String>),
}

/// A line that says nothing that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line in its file, from 1.
    pub number: usize,
    /// Why.
    pub reason: LineFault,
}

/// Why a line cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// Fewer than seven fields. web2py skips such a line silently.
    FieldsMissing(usize),
    /// A step of zero. web2py skips the whole file for it; here it is the line.
    StepOfZero(Field),
    /// The command ends within quotes. web2py's whole pass ends with that.
    Quotation,
    /// The command ends with a backslash. web2py's whole pass ends with that.
    Escape,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            LineFault::FieldsMissing(count) => write!(
                f,
                "the line is skipped: it has {count} of the seven fields minute hour day month weekday user command \
                 (after a nickname such as @daily: user command)"
            ),
            LineFault::StepOfZero(field) => {
                write!(f, "the line is skipped: the step in its {field} field is 0; write 1 or more")
            }
            LineFault::Quotation => f.write_str("the line is skipped: a quote in its command is not closed"),
            LineFault::Escape => {
                f.write_str("the line is skipped: its command ends with a backslash that escapes nothing")
            }
        }
    }
}

impl std::error::Error for LineError {}

impl Command {
    /// The command line in the application `app`. `launcher` stands for `python web2py.py`.
    pub fn arguments(&self, launcher: &[OsString], app: &str) -> Vec<OsString> {
        let (models, target) = match self {
            Command::Program(words) => return words.iter().map(OsString::from).collect(),
            Command::Function { name, models } => (*models, vec!["-S".to_owned(), format!("{app}/{name}")]),
            Command::File { path, models } => {
                (*models, vec!["-S".to_owned(), app.to_owned(), "-R".to_owned(), path.clone()])
            }
        };
        let mut arguments = launcher.to_vec();
        arguments.extend(["--cron_job", "--no_banner", "--no_gui", "--plain"].map(OsString::from));
        arguments.extend(target.into_iter().map(OsString::from));
        arguments.extend(models.then(|| OsString::from("-M")));
        arguments
    }
}

/// Parses the lines of a crontab, in order. Blank lines and comments are left out.
pub fn parse(text: &str) -> Vec<Result<Line, LineError>> {
    // web2py opens the file as text, where all three ends of lines are one.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    (1..)
        .zip(text.split('\n'))
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| parse_line(number, line).map_err(|reason| LineError { number, reason }))
        .collect()
}

fn parse_line(number: usize, written: &str) -> Result<Line, LineFault> {
    let mut line = written.to_owned();
    let mut nickname = None;
    if let Some((name, fields)) = NICKNAMES.iter().find(|(name, _)| written.starts_with(name)) {
        // Wherever it stands, as web2py does.
        line = written.replace(name, fields);
        nickname = Some((*name, written.matches(name).count() > 1));
    }
    let ([minute, hour, day, month, weekday, user], command) = seven_fields(&line)?;
    let times = [minute, hour, day, month, weekday];
    let mut read = fields::read(times).map_err(|StepOfZero(field)| LineFault::StepOfZero(field))?;
    if let Some((name, true)) = nickname {
        read.oddities.push(Oddity::NicknameTwice(name.to_owned()));
    }
    Ok(Line {
        number,
        text: written.split_whitespace().collect::<Vec<_>>().join(" "),
        schedule: nickname.map_or_else(|| times.join(" "), |(name, _)| name.to_owned()),
        when: if read.at_start { When::Start } else { When::Minutes(read.fields) },
        user: user.to_owned(),
        command: read_command(command)?,
        oddities: read.oddities,
    })
}

/// The six fields before the command, and the command with the spaces that are in it.
fn seven_fields(line: &str) -> Result<([&str; 6], &str), LineFault> {
    let mut rest = line.trim();
    let mut found = [""; 6];
    for (count, field) in found.iter_mut().enumerate() {
        if rest.is_empty() {
            return Err(LineFault::FieldsMissing(count));
        }
        let (text, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        (*field, rest) = (text, behind.trim_start());
    }
    if rest.is_empty() { Err(LineFault::FieldsMissing(6)) } else { Ok((found, rest)) }
}

fn read_command(text: &str) -> Result<Command, LineFault> {
    let (models, name) = match (text.strip_prefix("**"), text.strip_prefix('*')) {
        (Some(name), _) => (false, name),
        (None, Some(name)) => (true, name),
        (None, None) => {
            return match quoting::split(text) {
                Ok(words) => Ok(Command::Program(words)),
                Err(Unfinished::Quotation) => Err(LineFault::Quotation),
                Err(Unfinished::Escape) => Err(LineFault::Escape),
            };
        }
    };
    let name = name.to_owned();
    Ok(if name.ends_with(".py") {
        Command::File { path: name, models }
    } else {
        Command::Function { name, models }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Line {
        parse(line).remove(0).unwrap()
    }

    fn arguments(line: &str) -> String {
        let launcher = [OsString::from("python3"), OsString::from("web2py.py")];
        let arguments = one(line).command.arguments(&launcher, "shop");
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn blank_lines_and_comments_are_left_out_and_numbers_are_those_of_the_file() {
        let lines =
            parse("# a\r\n\r\n 0 * * * * root *default/a\r1 * * * * root *default/b\n\t# c\n@daily root x");
        let numbers: Vec<_> = lines.iter().map(|line| line.as_ref().unwrap().number).collect();
        assert_eq!(numbers, [3, 4, 6]);
    }

    #[test]
    fn command_lines_are_those_of_web2py() {
        let begin = "python3|web2py.py|--cron_job|--no_banner|--no_gui|--plain|";
        assert_eq!(arguments("* * * * * root *default/tidy"), format!("{begin}-S|shop/default/tidy|-M"));
        assert_eq!(arguments("* * * * * root **default/tidy"), format!("{begin}-S|shop/default/tidy"));
        let file = "applications/shop/cron/tidy.py";
        assert_eq!(arguments(&format!("* * * * * root *{file}")), format!("{begin}-S|shop|-R|{file}|-M"));
        assert_eq!(arguments(&format!("* * * * * root **{file}")), format!("{begin}-S|shop|-R|{file}"));
        assert_eq!(arguments("* * * * * root echo  'a  b' > c"), "echo|a  b|>|c");
    }

    #[test]
    fn nicknames_stand_for_their_fields() {
        assert_eq!(one("@reboot root *a/b").when, When::Start);
        assert_eq!(one("-1 * * * * root *a/b").when, When::Start);
        for (nickname, fields) in NICKNAMES {
            let (short, long) = (one(&format!("{nickname} root x")), one(&format!("{fields} root x")));
            assert_eq!((short.when, short.command), (long.when, long.command), "{nickname}");
            assert_eq!((short.schedule.as_str(), short.oddities), (nickname, vec![]));
        }
        let twice = one("@daily root echo @daily");
        assert_eq!(twice.oddities, [Oddity::NicknameTwice("@daily".to_owned())]);
        assert_eq!(
            twice.command,
            Command::Program(["echo", "0", "0", "*", "*", "*"].map(String::from).to_vec())
        );
    }

    #[test]
    fn lines_that_cannot_run_say_why() {
        let fault = |line: &str| parse(line).remove(0).unwrap_err().reason;
        assert_eq!(fault("*/5 * * * * *default/tidy"), LineFault::FieldsMissing(6));
        assert_eq!(fault("@daily *default/tidy"), LineFault::FieldsMissing(6));
        assert_eq!(fault("@sometimes root *default/tidy"), LineFault::FieldsMissing(3));
        assert_eq!(fault("*/0 * * * * root x"), LineFault::StepOfZero(Field::Minute));
        assert_eq!(fault("* * * * * root echo 'a"), LineFault::Quotation);
        assert_eq!(fault("* * * * * root echo \\"), LineFault::Escape);
        assert_eq!(parse("x\n* * * * * root y").len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([-*/0-9a-z@'\"\\\\]{0,6}[ \n\t]){0,20}|\\PC{0,60}") {
            for line in parse(&text) {
                match line {
                    Ok(line) => prop_assert!(line.number > 0 && !line.text.is_empty()),
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}
