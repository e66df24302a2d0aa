//! The byte order mark that some editors write at the start of a text.

/// A text's bytes without the UTF-8 byte order mark (RFC 3629, section 6), if they start with one.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_left_out_and_nothing_else() {
        assert_eq!(without_mark("\u{feff}{}".as_bytes()), b"{}");
        assert_eq!(without_mark(b"{}"), b"{}");
        assert_eq!(without_mark(b"\xEF\xBB"), b"\xEF\xBB");
    }
}
