//! Splits texts into passages to search: paragraphs, long ones in overlapping pieces. Independent of models.

/// Maximum words of a passage: within an encoder's limit.
const WORDS: usize = 100;
/// Words that consecutive pieces share, so that every sentence is complete in some piece.
const OVERLAP: usize = 20;
/// A paragraph of fewer words is a heading: it is merged with the next one.
const HEADING: usize = 8;

/// A piece of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Its first line, from 1.
    pub line: usize,
    pub text: String,
}

/// The passages of a text, in order.
pub fn split(text: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut words: Vec<(usize, &str)> = Vec::new();
    let mut written = 0; // words since the last empty line
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            if written >= HEADING {
                cut(&words, &mut passages);
                words.clear();
            }
            written = 0;
            continue;
        }
        let before = words.len();
        words.extend(line.split_whitespace().map(|w| (at + 1, w)));
        written += words.len() - before;
    }
    cut(&words, &mut passages);
    passages
}

fn cut(words: &[(usize, &str)], passages: &mut Vec<Passage>) {
    let mut from = 0;
    while from < words.len() {
        let to = (from + WORDS).min(words.len());
        let text = words[from..to].iter().map(|w| w.1).collect::<Vec<_>>().join(" ");
        passages.push(Passage { line: words[from].0, text });
        if to == words.len() {
            break;
        }
        from = to - OVERLAP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_stays_with_its_paragraph_and_lines_are_counted() {
        let text = "# Cats\n\nA cat sits on the mat and looks\nat the rain outside.\n\n\nDogs, however, like the rain more than any cat ever did.\n";
        let found = split(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].text, "# Cats A cat sits on the mat and looks at the rain outside.");
        assert_eq!((found[0].line, found[1].line), (1, 7));
    }

    #[test]
    fn long_paragraphs_are_cut_with_overlap_and_nothing_is_lost() {
        let words: Vec<String> = (0..250).map(|i| format!("w{i}")).collect();
        let text = words.chunks(10).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n");
        let found = split(&text);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|p| p.text.split(' ').count() <= WORDS));
        assert!(found[1].text.starts_with("w80 ") && found[1].line == 9, "{:?}", found[1]);
        assert!(found[2].text.ends_with(" w249"));
        assert!(split("\n \n").is_empty());
    }
}
