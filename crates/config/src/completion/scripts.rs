//! The scripts by which shells ask for completions.

/// Scripts, by the name of the shell.
pub(crate) const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("script.bash")),
    ("fish", include_str!("script.fish")),
    ("zsh", include_str!("script.zsh")),
];
