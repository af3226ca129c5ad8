//! Texts that users type: command line, bind addresses, log formats, crontabs. An error is fine, a panic is not.
#![no_main]

use std::ffi::OsString;
use std::path::Path;

use anygate_config::{log_format, parse, quoting};
use anygate_cron::crontab;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = log_format::read(text);
    let _ = quoting::split(text);
    let _ = crontab::parse(text);
    let arguments = text.split('\n').map(OsString::from);
    if let Err(exit) = parse(arguments, &[], Path::new("/nowhere")) {
        assert_eq!(exit.code, 2);
        assert!(!exit.message.is_empty());
    }
});
