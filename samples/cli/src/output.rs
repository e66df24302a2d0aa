//! Output of commands: tables, sizes, times, progress on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// The destination of a command's messages: standard output, unless the command writes its file there (`--outputs
/// /dev/stdout`); then standard error.
pub fn report(file: Option<&Path>) -> Box<dyn Write> {
    match file.is_some_and(is_standard_output) {
        true => Box::new(std::io::stderr()),
        false => Box::new(std::io::stdout().lock()),
    }
}

#[cfg(unix)]
fn is_standard_output(path: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let same = || {
        let out = std::io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from)?.metadata()?;
        let file = std::fs::metadata(path)?;
        let somebody_reads = !std::os::unix::fs::FileTypeExt::is_char_device(&file.file_type());
        Ok::<bool, std::io::Error>(somebody_reads && (out.dev(), out.ino()) == (file.dev(), file.ino()))
    };
    same().unwrap_or(false)
}

#[cfg(not(unix))]
fn is_standard_output(_: &Path) -> bool {
    false
}

/// A number of bytes in readable form: `312.4 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// An integer with thousands separators: `22,713,216`.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of threads: `1 thread`, `2 threads`.
pub fn threads(n: usize) -> String {
    if n == 1 { "1 thread".into() } else { format!("{n} threads") }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A duration in readable form: `4.2 µs`, `18.3 ms`, `1.9 s`.
pub fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// The text on one line, truncated to a width in characters.
pub fn shortened(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width {
        return line;
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Columns as wide as their widest cell; those named in `right` are right-aligned.
pub fn table(out: &mut dyn Write, rows: &[Vec<String>], right: &[usize]) -> std::io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cell = |(c, text): (usize, &String)| {
            let pad = " ".repeat(widths[c].saturating_sub(text.chars().count()));
            if right.contains(&c) { format!("{pad}{text}") } else { format!("{text}{pad}") }
        };
        writeln!(out, "{}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A line on standard error; write errors are ignored.
pub fn note(what: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// A warning: on standard error, so that piped output stays clean.
pub fn warn(what: impl std::fmt::Display) {
    note(format_args!("warning: {what}"));
}

/// A progress bar on standard error, if that is a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(steps: usize, what: &str) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(steps as u64).with_message(what.to_string());
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// Sets the number of completed steps.
    pub fn at(&self, done: usize) {
        self.0.set_position(done as u64);
    }

    /// Sets the text next to the bar.
    pub fn say(&self, what: String) {
        self.0.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        assert_eq!([bytes(999), bytes(19_400), bytes(312_400_000)], ["999 B", "19.4 kB", "312.4 MB"]);
        assert_eq!([grouped(7), grouped(4_810), grouped(22_713_216)], ["7", "4,810", "22,713,216"]);
        assert_eq!(time(Duration::from_micros(18_340)), "18.3 ms");
        assert_eq!(shortened("a  long\nline of text", 10), "a long li…");
    }

    #[test]
    fn columns_align() {
        let rows = [vec!["name".into(), "bytes".into()], vec!["w".into(), "7".into()]];
        let mut out = Vec::new();
        table(&mut out, &rows, &[1]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name  bytes\nw         7\n");
    }
}
