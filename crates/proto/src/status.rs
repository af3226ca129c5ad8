//! Reason phrases of status codes (RFC 9110 section 15).

/// Returns the reason phrase of a status; "Error" for one that is not registered.
pub fn reason(status: u16) -> &'static str {
    match status {
        // The `http` crate has the names of RFC 7231 and RFC 4918 here.
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        _ => http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_the_registry() {
        let reasons = [200, 308, 413, 421, 422, 431, 599].map(reason);
        let expected = [
            "OK",
            "Permanent Redirect",
            "Content Too Large",
            "Misdirected Request",
            "Unprocessable Content",
            "Request Header Fields Too Large",
            "Error",
        ];
        assert_eq!(reasons, expected);
    }
}
