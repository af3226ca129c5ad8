//! The page that lists a directory.

use std::fmt::Write;
use std::fs::File;
use std::io;

use rustix::fs::{Dir, FileType};

/// A page lists no more than this.
const ENTRIES_MAX: usize = 10_000;

/// A page with what a folder holds, hidden files left out. `path` is how it was asked for, decoded; there is a way up
/// unless it `is_top`.
pub(super) fn page(folder: &File, path: &[u8], is_top: bool) -> io::Result<String> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut cut = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let mut name = entry.file_name().to_bytes().to_vec();
        if name.starts_with(b".") {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            cut = true;
            break;
        }
        if entry.file_type() == FileType::Directory {
            name.push(b'/');
        }
        entries.push(name);
    }
    entries
        .sort_unstable_by(|a, b| a.ends_with(b"/").cmp(&b.ends_with(b"/")).reverse().then_with(|| a.cmp(b)));
    let title = escape(&String::from_utf8_lossy(path));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>body{{font:1rem/1.6 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}}\
         ul{{list-style:none;padding:0}}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !is_top {
        page.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for name in &entries {
        let text = escape(&String::from_utf8_lossy(name));
        // Relative and begun with a dot, so that no name can be taken for a host or a scheme.
        let written = writeln!(page, "<li><a href=\"./{}\">{text}</a></li>", encode(name));
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    if cut {
        page.push_str("<li>…</li>\n");
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    Ok(page)
}

/// Text as HTML, also inside attributes. Control characters have no meaning there and are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// A name as a part of a path (RFC 3986 section 2.3: unreserved characters stay); a slash stays.
pub(super) fn encode(name: &[u8]) -> String {
    let mut encoded = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let written = write!(encoded, "%{byte:02X}");
            debug_assert!(written.is_ok(), "a string takes everything");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_folder_is_listed_in_order_and_escaped() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["b.txt", "a.txt", ".hidden", "<img src=x onerror=alert(1)>", "a&\"b'", "javascript:alert(1)"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
        fs::create_dir(folder.path().join("z")).unwrap();
        let file = File::open(folder.path()).unwrap();
        let html = page(&file, b"/files/<b>/", false).unwrap();
        let items: Vec<_> = html.lines().filter(|line| line.starts_with("<li>")).collect();
        assert_eq!(
            items,
            [
                "<li><a href=\"../\">../</a></li>",
                "<li><a href=\"./z/\">z/</a></li>",
                "<li><a href=\"./%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E\">&lt;img src=x onerror=alert(1)&gt;</a></li>",
                "<li><a href=\"./a%26%22b%27\">a&amp;&quot;b&#39;</a></li>",
                "<li><a href=\"./a.txt\">a.txt</a></li>",
                "<li><a href=\"./b.txt\">b.txt</a></li>",
                "<li><a href=\"./caf%E9\">caf\u{fffd}</a></li>",
                "<li><a href=\"./javascript%3Aalert%281%29\">javascript:alert(1)</a></li>",
            ]
        );
        assert!(html.contains("<title>/files/&lt;b&gt;/</title>"));
        assert!(!page(&file, b"/", true).unwrap().contains("../"));
    }

    proptest! {
        #[test]
        fn nothing_in_a_name_means_anything(name: Vec<u8>) {
            let text = escape(&String::from_utf8_lossy(&name));
            prop_assert!(!text.contains(['<', '>', '"', '\'']));
            prop_assert!(encode(&name).bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)));
        }
    }
}
