//! Names with wildcards.

/// `*` stands for any characters, slashes among them, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<u8>);

impl Pattern {
    /// Takes any text for a pattern.
    pub(super) fn new(text: &str) -> Pattern {
        Pattern(text.as_bytes().to_vec())
    }

    /// Whether a whole name is meant. It takes time in proportion to both lengths at most.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let Pattern(pattern) = self;
        let (mut at, mut in_name) = (0, 0);
        // Where to go on if the last `*` must take one more.
        let mut retry: Option<(usize, usize)> = None;
        while let Some(&byte) = name.get(in_name) {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, in_name));
                }
                Some(&wanted) if wanted == b'?' || wanted == byte => {
                    at += 1;
                    in_name += 1;
                }
                _ => match &mut retry {
                    Some((after, taken)) => {
                        *taken += 1;
                        (at, in_name) = (*after, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern.get(at..).unwrap_or_default().iter().all(|&byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stand_for_characters() {
        for (pattern, name, expected) in [
            ("*.js", "a/b.js", true),
            ("*.js", "a/b.json", false),
            ("assets/*", "assets/a/b", true),
            ("assets/*", "other/a", false),
            ("*-????????.js", "app-3f2a9c1b.js", true),
            ("*-????????.js", "app-3f2a.js", false),
            ("*.*.css", "a.b.css", true),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name.as_bytes()), expected, "{pattern} {name}");
        }
        let hard = Pattern::new(&"*a".repeat(50));
        assert!(!hard.matches("a".repeat(5000).replace("aaaaa", "aaab").as_bytes()));
    }

    /// The definition, however long it takes.
    fn simple(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| simple(rest, &name[taken..])),
            Some((wanted, rest)) => name
                .split_first()
                .is_some_and(|(byte, name)| (wanted == byte || *wanted == b'?') && simple(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn it_does_what_it_says(pattern in "[ab*?]{0,8}", name in "[abc]{0,8}") {
            prop_assert_eq!(Pattern::new(&pattern).matches(name.as_bytes()), simple(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
