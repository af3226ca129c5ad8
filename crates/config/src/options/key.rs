//! Typed keys of options: `Key<u64>` is the key of an option whose value is a `u64`. A misspelt key, or a type that is not that
//! of its row, does not compile.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use super::choices::{
    ClientCert, Concurrency, CronMode, Facility, ForwardedHeader, LogLevel, MemoryMax, QueueMax, ReloadMode,
    SecurityProfile, WorkerCount,
};
use super::opt::{Kind, Opt};
use crate::value::Value;

/// Key of the option whose value is a `T`.
///
/// ```
/// use anygate_config::{LogLevel, Settings, options};
/// let settings = Settings::default();
/// let bytes: u64 = settings.get(options::BODY_MAX_BYTES);
/// assert_eq!(bytes, 1 << 30);
/// match settings.get(options::LOG_LEVEL) {
///     LogLevel::Critical | LogLevel::Error | LogLevel::Warn | LogLevel::Info => {}
///     LogLevel::Debug => unreachable!("it is not the default"),
/// }
/// ```
///
/// A misspelt key does not compile:
///
/// ```compile_fail,E0425
/// let bytes: u64 = anygate_config::Settings::default().get(anygate_config::options::BODY_MAX_BITES);
/// ```
///
/// Nor does another type:
///
/// ```compile_fail,E0308
/// let bytes: String = anygate_config::Settings::default().get(anygate_config::options::BODY_MAX_BYTES);
/// ```
///
/// Nor does a forgotten choice:
///
/// ```compile_fail,E0004
/// use anygate_config::{LogLevel, Settings, options};
/// match Settings::default().get(options::LOG_LEVEL) {
///     LogLevel::Critical | LogLevel::Error | LogLevel::Warn | LogLevel::Info => {}
/// }
/// ```
#[derive(Debug)]
pub struct Key<T> {
    option: &'static Opt,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T: Typed> Key<T> {
    /// `identifier`: name of the constant.
    pub(super) const fn new(identifier: &str, option: &'static Opt) -> Self {
        assert!(is_in_capitals(identifier, option.name), "a key is the name of its option in capitals");
        assert!(T::SHAPE.fits(option.kind), "the type of a key must fit the kind of its option");
        assert!(
            match T::DEFAULT {
                DefaultValue::Set => !option.default.is_empty(),
                DefaultValue::Unset => option.default.is_empty(),
                DefaultValue::Either => true,
            },
            "an option without a default is an Option, and only such an option"
        );
        if let Kind::Choice(words) = option.kind {
            assert!(
                option.default.is_empty() || is_among(option.default, words),
                "a default is one of the words"
            );
        }
        Key { option, value: PhantomData }
    }

    pub(super) const fn row(self) -> Opt {
        *self.option
    }

    /// Returns the option.
    pub const fn option(self) -> &'static Opt {
        self.option
    }

    /// Whether it is the key of that option.
    pub fn is(self, option: &Opt) -> bool {
        self.option.name == option.name
    }

    /// Returns the name of the option.
    pub const fn name(self) -> &'static str {
        self.option.name
    }
}

/// A type that values of options have.
pub trait Typed: Sized {
    /// The kinds of options that have it.
    const SHAPE: Shape;
    /// Whether their options have a default.
    const DEFAULT: DefaultValue;

    /// Makes it of the value of an option, which is `None` if the option is not set and has no default.
    ///
    /// `None`: it is the value of an option of another kind.
    fn of(value: Option<Value>) -> Option<Self>;
}

/// Kinds of options.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum Shape {
    Flag,
    Text,
    Path,
    List,
    /// An integer or a size, up to this maximum.
    Number(u64),
    Duration,
    TimeLimit,
    Mode,
    /// An integer, or `auto`.
    AutoNumber,
    /// A size, or `auto`.
    AutoSize,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Whether an option has a default.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// It has one.
    Set,
    /// It has none.
    Unset,
    /// It may have one.
    Either,
}

impl Shape {
    const fn fits(self, kind: Kind) -> bool {
        match (self, kind) {
            (Shape::Flag, Kind::Flag)
            | (Shape::Text, Kind::Text)
            | (Shape::Path, Kind::Path)
            | (Shape::List, Kind::List)
            | (Shape::Duration, Kind::Duration)
            | (Shape::TimeLimit, Kind::TimeLimit)
            | (Shape::AutoNumber, Kind::AutoInteger { .. })
            | (Shape::AutoSize, Kind::AutoSize { .. })
            | (Shape::Mode, Kind::Mode) => true,
            (Shape::Number(type_max), Kind::Integer { max, .. } | Kind::Size { max, .. }) => max <= type_max,
            (Shape::Choice(words), Kind::Choice(of_row)) => are_the_same(words, of_row),
            _ => false,
        }
    }
}

const fn is_among(word: &str, words: &[&str]) -> bool {
    let mut words = words;
    while let [first, rest @ ..] = words {
        if is_same(first.as_bytes(), word.as_bytes()) {
            return true;
        }
        words = rest;
    }
    false
}

const fn are_the_same(words: &[&str], others: &[&str]) -> bool {
    let (mut words, mut others) = (words, others);
    while let ([word, more @ ..], [other, more_others @ ..]) = (words, others) {
        if !is_same(word.as_bytes(), other.as_bytes()) {
            return false;
        }
        (words, others) = (more, more_others);
    }
    words.is_empty() && others.is_empty()
}

const fn is_same(text: &[u8], other: &[u8]) -> bool {
    let (mut text, mut other) = (text, other);
    while let ([a, rest @ ..], [b, rest_of_other @ ..]) = (text, other) {
        if *a != *b {
            return false;
        }
        (text, other) = (rest, rest_of_other);
    }
    text.is_empty() && other.is_empty()
}

const fn is_in_capitals(identifier: &str, name: &str) -> bool {
    let (mut capitals, mut letters) = (identifier.as_bytes(), name.as_bytes());
    while let ([capital, more_capitals @ ..], [letter, more_letters @ ..]) = (capitals, letters) {
        if *capital != letter.to_ascii_uppercase() {
            return false;
        }
        (capitals, letters) = (more_capitals, more_letters);
    }
    capitals.is_empty() && letters.is_empty()
}

/// Says which type the options of a kind have.
macro_rules! typed {
    ($($type:ty: $shape:expr, $default:ident, $value:pat => $made:expr;)+) => {
        $(impl Typed for $type {
            const SHAPE: Shape = $shape;
            const DEFAULT: DefaultValue = DefaultValue::$default;

            fn of(value: Option<Value>) -> Option<Self> {
                match value {
                    $value => $made,
                    _ => None,
                }
            }
        })+
    };
}

typed! {
    bool: Shape::Flag, Set, Some(Value::Flag(flag)) => Some(flag);
    String: Shape::Text, Set, Some(Value::Text(text)) => Some(text);
    u64: Shape::Number(u64::MAX), Set, Some(Value::Number(number)) => Some(number);
    u32: Shape::Number(0xffff_ffff), Set, Some(Value::Number(number)) => u32::try_from(number).ok();
    // Where addresses are short, what is larger than all of them is no limit.
    usize: Shape::Number(u64::MAX), Set,
        Some(Value::Number(number)) => Some(usize::try_from(number).unwrap_or(usize::MAX));
    Duration: Shape::Duration, Set, Some(Value::Duration(time)) => Some(time);
}

/// Options that may not be set.
macro_rules! optional {
    ($($type:ty: $shape:expr, $value:pat => $made:expr;)+) => {
        $(impl Typed for Option<$type> {
            const SHAPE: Shape = $shape;
            const DEFAULT: DefaultValue = DefaultValue::Unset;

            fn of(value: Option<Value>) -> Option<Self> {
                match value {
                    None => Some(None),
                    Some($value) => $made.map(Some),
                    Some(_) => None,
                }
            }
        })+
    };
}

optional! {
    String: Shape::Text, Value::Text(text) => Some(text);
    PathBuf: Shape::Path, Value::Text(path) => Some(PathBuf::from(path));
    u16: Shape::Number(0xffff), Value::Number(number) => u16::try_from(number).ok();
    u64: Shape::Number(u64::MAX), Value::Number(number) => Some(number);
    u32: Shape::Mode, Value::Number(bits) => u32::try_from(bits).ok();
    CronMode: Shape::Choice(CronMode::WORDS), Value::Text(word) => CronMode::of_word(&word);
}

impl Typed for Vec<String> {
    const SHAPE: Shape = Shape::List;
    const DEFAULT: DefaultValue = DefaultValue::Either;

    fn of(value: Option<Value>) -> Option<Self> {
        match value {
            None => Some(Vec::new()),
            Some(Value::List(items)) => Some(items),
            Some(_) => None,
        }
    }
}

impl Typed for QueueMax {
    const SHAPE: Shape = Shape::AutoNumber;
    const DEFAULT: DefaultValue = DefaultValue::Set;

    fn of(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Text(_)) => Some(QueueMax::Auto),
            Some(Value::Number(0)) => Some(QueueMax::Unlimited),
            Some(Value::Number(number)) => {
                Some(QueueMax::Count(usize::try_from(number).unwrap_or(usize::MAX)))
            }
            _ => None,
        }
    }
}

impl Typed for WorkerCount {
    const SHAPE: Shape = Shape::AutoNumber;
    const DEFAULT: DefaultValue = DefaultValue::Set;

    fn of(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Text(_)) => Some(WorkerCount::Auto),
            Some(Value::Number(number)) => usize::try_from(number).ok().map(WorkerCount::Count),
            _ => None,
        }
    }
}

impl Typed for MemoryMax {
    const SHAPE: Shape = Shape::AutoSize;
    const DEFAULT: DefaultValue = DefaultValue::Set;

    fn of(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Text(_)) => Some(MemoryMax::Auto),
            Some(Value::Number(0)) => Some(MemoryMax::Unlimited),
            Some(Value::Number(bytes)) => Some(MemoryMax::Bytes(bytes)),
            _ => None,
        }
    }
}

/// A time limit is `None` if the option is 0: there is no limit.
impl Typed for Option<Duration> {
    const SHAPE: Shape = Shape::TimeLimit;
    const DEFAULT: DefaultValue = DefaultValue::Set;

    fn of(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Duration(time)) => Some(Some(time).filter(|time| !time.is_zero())),
            _ => None,
        }
    }
}

typed! {
    ClientCert: Shape::Choice(ClientCert::WORDS), Set, Some(Value::Text(word)) => ClientCert::of_word(&word);
    Concurrency: Shape::Choice(Concurrency::WORDS), Set, Some(Value::Text(word)) => Concurrency::of_word(&word);
    Facility: Shape::Choice(Facility::WORDS), Set, Some(Value::Text(word)) => Facility::of_word(&word);
    ForwardedHeader: Shape::Choice(ForwardedHeader::WORDS), Set,
        Some(Value::Text(word)) => ForwardedHeader::of_word(&word);
    LogLevel: Shape::Choice(LogLevel::WORDS), Set, Some(Value::Text(word)) => LogLevel::of_word(&word);
    ReloadMode: Shape::Choice(ReloadMode::WORDS), Set, Some(Value::Text(word)) => ReloadMode::of_word(&word);
    SecurityProfile: Shape::Choice(SecurityProfile::WORDS), Set,
        Some(Value::Text(word)) => SecurityProfile::of_word(&word);
}

/// Makes the keys of rows, and `ROWS`, the rows in order.
macro_rules! rows {
    ($($key:ident: $type:ty = $row:expr,)+) => {
        $(
            #[doc = concat!("Key of the option ", stringify!($key), ".")]
            pub const $key: $crate::options::Key<$type> = {
                const ROW: Opt = $row;
                $crate::options::Key::new(stringify!($key), &ROW)
            };
        )+

        pub(super) const ROWS: &[Opt] = &[$($key.row()),+];
    };
}
pub(super) use rows;

#[cfg(test)]
mod tests {
    use super::super::OPTIONS;
    use super::super::opt::BASE;
    use super::*;

    const FLAG: Opt = Opt { name: "flag", kind: Kind::Flag, default: "true", ..BASE };
    const NUMBER: Opt =
        Opt { name: "number", kind: Kind::Integer { min: 0, max: 1 << 16 }, default: "1", ..BASE };
    const WORD: Opt = Opt { name: "word", kind: Kind::Choice(LogLevel::WORDS), default: "warn", ..BASE };
    const OTHER_WORD: Opt = Opt { default: "loud", ..WORD };
    const UNSET: Opt = Opt { default: "", ..FLAG };

    #[test]
    fn a_key_fits_its_row() {
        let refuses = |make: fn()| std::panic::catch_unwind(make).is_err();
        for (fits, make) in [
            (true, (|| _ = Key::<bool>::new("FLAG", &FLAG)) as fn()),
            (true, || _ = Key::<u32>::new("NUMBER", &NUMBER)),
            (true, || _ = Key::<LogLevel>::new("WORD", &WORD)),
            (false, || _ = Key::<bool>::new("FLAGS", &FLAG)),
            (false, || _ = Key::<String>::new("FLAG", &FLAG)),
            (false, || _ = Key::<bool>::new("FLAG", &UNSET)),
            (false, || _ = Key::<Duration>::new("NUMBER", &NUMBER)),
            (false, || _ = Key::<Option<u16>>::new("NUMBER", &Opt { default: "", ..NUMBER })),
            (false, || _ = Key::<Concurrency>::new("WORD", &WORD)),
            (false, || _ = Key::<LogLevel>::new("WORD", &OTHER_WORD)),
        ] {
            assert_eq!(!refuses(make), fits);
        }
    }

    #[test]
    fn every_default_is_of_its_kind() {
        for option in OPTIONS {
            assert!(option.default.is_empty() || option.kind.read(option.default).is_ok(), "{}", option.name);
        }
    }
}
