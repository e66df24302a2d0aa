//! A kernel's text under construction, with the data needed to run it: the offsets of its entry point and of its statements,
//! its threads, its workgroup memory. The writer states these; nothing parses the text for them (debug builds compare).

use std::fmt;

/// Lines of WGSL with one entry point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The lines.
    pub all: String,
    /// Byte offset of the entry point.
    pub entry: usize,
    /// Byte offset of its statements.
    pub body: usize,
    /// Threads of a workgroup.
    pub threads: usize,
    /// Bytes of workgroup memory, each variable aligned to 16.
    pub shared: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

impl Text {
    /// Appends a line.
    pub fn line(&mut self, line: impl AsRef<str>) {
        self.push_str(line.as_ref());
        self.all.push('\n');
    }

    /// Appends text.
    pub fn push_str(&mut self, text: &str) {
        self.all.push_str(text);
    }

    /// Declares an array in workgroup memory.
    pub fn share(&mut self, name: &str, ty: &str, count: usize) {
        let (line, bytes) = shared(name, ty, Some(count));
        self.shared += bytes;
        self.line(line);
    }

    /// Declares a single value in workgroup memory.
    pub fn share_one(&mut self, name: &str, ty: &str) {
        let (line, bytes) = shared(name, ty, None);
        self.shared += bytes;
        self.line(line);
    }

    /// Opens the entry point; `group` and `thread` name the workgroup id (`vec3<u32>`) and the local index (`u32`).
    pub fn open(&mut self, threads: usize, group: &str, thread: &str) {
        (self.entry, self.threads) = (self.all.len(), threads);
        self.line(format!("@compute @workgroup_size({threads})"));
        self.line(format!(
            "fn main(@builtin(workgroup_id) {group}: vec3<u32>, @builtin(local_invocation_index) {thread}: u32) {{"
        ));
        self.body = self.all.len();
    }

    /// Inserts lines before all other statements of the entry point.
    pub fn begin_with(&mut self, lines: &str) {
        self.all.insert_str(self.body, lines);
    }
}

/// The entry point around a body that uses `wid` and `lid`.
pub fn entry(threads: usize, body: &str) -> Text {
    let mut text = Text::default();
    text.open(threads, "wid", "lid");
    text.line(body);
    text.line("}");
    text
}

/// The declaration of an array or a single value in workgroup memory, and its bytes.
pub fn shared(name: &str, ty: &str, count: Option<usize>) -> (String, usize) {
    let each = match ty {
        "f16" => 2,
        "vec4<f16>" => 8,
        "vec4<f32>" => 16,
        // f32, i32, u32, and u32 that is atomic
        _ => 4,
    };
    let line = match count {
        Some(n) => format!("var<workgroup> {name}: array<{ty}, {n}>;"),
        None => format!("var<workgroup> {name}: {ty};"),
    };
    (line, (each * count.unwrap_or(1)).next_multiple_of(16))
}

/// Parses threads and workgroup memory from a text: debug builds compare these with the writer's.
#[cfg(debug_assertions)]
pub fn read_off(text: &str) -> [usize; 2] {
    fn size(ty: &str) -> usize {
        let inner = |prefix: &str| ty.strip_prefix(prefix).and_then(|t| t.strip_suffix('>'));
        if let Some((of, count)) = inner("array<").and_then(|t| t.rsplit_once(", ")) {
            return size(of) * count.parse::<usize>().unwrap_or(0);
        }
        match inner("vec4<") {
            Some(of) => 4 * size(of),
            None if ty == "f16" => 2,
            None => 4,
        }
    }
    let threads = text.split("@workgroup_size(").nth(1).and_then(|t| t.split(')').next()?.parse().ok());
    let types = text.split("var<workgroup>").skip(1).filter_map(|v| v.split(';').next()?.split_once(": "));
    [threads.unwrap_or(0), types.map(|(_, ty)| size(ty).next_multiple_of(16)).sum()]
}
