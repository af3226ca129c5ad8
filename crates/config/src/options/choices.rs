//! Options that are one of several words: an enum each, so that code that reads one must handle every word.

/// Makes an enum of the words of an option.
macro_rules! choices {
    ($($(#[$about:meta])* pub enum $name:ident { $($(#[$of:meta])* $choice:ident = $word:literal,)+ })+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {
                $($(#[$of])* $choice,)+
            }

            impl $name {
                /// All of them, in the order of the documentation.
                pub const ALL: &'static [$name] = &[$($name::$choice),+];
                /// Their words, in the same order.
                pub const WORDS: &'static [&'static str] = &[$($word),+];

                /// Returns its word.
                pub fn word(self) -> &'static str {
                    match self {
                        $($name::$choice => $word,)+
                    }
                }

                /// Returns the choice of a word.
                pub fn of_word(word: &str) -> Option<$name> {
                    match word {
                        $($word => Some($name::$choice),)+
                        _ => None,
                    }
                }
            }
        )+
    };
}

/// How many requests may wait for a thread or greenlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMax {
    /// As many as will probably not wait too long.
    Auto,
    /// Any number.
    Unlimited,
    /// At most so many.
    Count(usize),
}

/// How many workers there are at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// As many as there are processors.
    Auto,
    /// This many.
    Count(usize),
}

/// How much memory a worker may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMax {
    /// Its share of what there is.
    Auto,
    /// Any amount.
    Unlimited,
    /// This many bytes.
    Bytes(u64),
}

choices! {
    /// How a worker runs requests concurrently.
    #[derive(Default)]
    pub enum Concurrency {
        /// Threads.
        #[default]
        Threads = "threads",
        /// Greenlets of one gevent hub.
        Gevent = "gevent",
    }

    /// How new workers take the place of old ones.
    pub enum ReloadMode {
        /// All new ones beside all old ones.
        Beside = "beside",
        /// One after another.
        Rolling = "rolling",
    }

    /// Fields that trusted proxies set.
    #[derive(Default)]
    pub enum ForwardedHeader {
        /// X-Forwarded-For, -Proto, -Ssl, -Host, -Port, -Prefix.
        #[default]
        XForwarded = "x-forwarded",
        /// Forwarded (RFC 7239).
        Forwarded = "forwarded",
    }

    /// Whether clients must show a certificate.
    pub enum ClientCert {
        /// Clients without one are rejected.
        Required = "required",
        /// Clients without one are accepted.
        Optional = "optional",
    }

    /// When jobs run.
    pub enum CronMode {
        /// By the clock.
        Hard = "hard",
        /// In minutes in which the server handled requests.
        Soft = "soft",
        /// When the system's cron starts them.
        External = "external",
        /// Never.
        None = "none",
    }

    /// Severity of messages that are logged.
    #[expect(missing_docs, reason = "the words of the option")]
    pub enum LogLevel {
        Critical = "critical",
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
    }

    /// Source of messages, as syslog names it (RFC 5424 section 6.2.1).
    #[derive(Default)]
    #[expect(missing_docs, reason = "the words of the option")]
    pub enum Facility {
        #[default]
        Daemon = "daemon",
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }

    /// Sets of security fields.
    #[derive(Default)]
    pub enum SecurityProfile {
        /// None.
        #[default]
        Off = "off",
        /// What hardly any application notices.
        Default = "default",
        /// What an application must be written for: no inline scripts, no frames, nothing from other sites.
        Strict = "strict",
    }
}

impl Facility {
    /// Returns its number.
    pub fn number(self) -> u8 {
        match self {
            Facility::User => 1,
            Facility::Daemon => 3,
            Facility::Local0 => 16,
            Facility::Local1 => 17,
            Facility::Local2 => 18,
            Facility::Local3 => 19,
            Facility::Local4 => 20,
            Facility::Local5 => 21,
            Facility::Local6 => 22,
            Facility::Local7 => 23,
        }
    }
}
