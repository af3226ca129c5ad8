//! Every cap a codec enforces on what a peer sends. Defaults and help live in `config`, which makes these values.

/// Caps on one request. All are enforced while reading, before anything is stored past them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line in bytes, CRLF not counted; past it 414 (RFC 9112 section 3).
    pub request_line_max_bytes: usize,
    /// Maximum number of field lines in a head or a trailer section; above it 431 (RFC 6585 section 5).
    pub fields_max: usize,
    /// Maximum total size of field lines; above it 431. Also limits the trailer section.
    pub fields_max_bytes: usize,
    /// Longest body in bytes, decoded; past it 413, for chunked bodies as well.
    pub body_max_bytes: u64,
    /// Maximum total size of chunk extensions in a body; above it 400: they carry nothing and cost parsing.
    pub chunk_extensions_max_bytes: usize,
}

impl Limits {
    /// Maximum total size of a request's CGI variables: they carry a request line and fields.
    pub fn variables_max_bytes(&self) -> usize {
        self.request_line_max_bytes.saturating_add(self.fields_max_bytes)
    }

    /// Maximum number of a request's CGI variables: one per field, and those that front servers add.
    pub fn variables_max(&self) -> usize {
        self.fields_max.saturating_add(100)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line_max_bytes: 8 * 1024,
            fields_max: 100,
            fields_max_bytes: 64 * 1024,
            body_max_bytes: 1 << 30,
            chunk_extensions_max_bytes: 16 * 1024,
        }
    }
}
