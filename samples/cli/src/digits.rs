//! The handwritten digits of `samples/data`: read, split, slanted, drawn. Independent of models.

use crate::failure::{Failure, Result};
use crate::random::Random;
use flate2::read::GzDecoder;
use std::io::Read;

/// Pixels along each side.
pub const SIDE: usize = 8;
/// Pixels of a digit.
pub const PIXELS: usize = SIDE * SIDE;
/// Classes: 0 to 9.
pub const CLASSES: usize = 10;

/// The file of `samples/data`, embedded in the program so that the demo runs from anywhere.
const SHIPPED: &[u8] = include_bytes!("../../data/digits.csv.gz");
/// The seed of the split into training and held-out digits.
const SPLIT_SEED: u64 = 20_240_807;
/// Number of training digits of the shipped classifier; the others are held out.
const TRAINED_ON: usize = 1347;

/// One digit: pixels from 0 (paper) to 1 (ink), row by row, and its label.
#[derive(Clone, Debug, PartialEq)]
pub struct Digit {
    pub pixels: [f32; PIXELS],
    pub class: u32,
}

/// The training digits and the held-out ones.
pub struct Split {
    pub learn: Vec<Digit>,
    pub held_out: Vec<Digit>,
}

/// The shipped digits, split by a fixed seed: always the same digits are held out.
pub fn shipped() -> Result<Split> {
    split(parse(SHIPPED, "the digits in this program")?)
}

/// The digits of another file of the same form, split by the same seed.
pub fn from_file(path: &std::path::Path) -> Result<Split> {
    let bytes = std::fs::read(path).map_err(|e| Failure::reading(path, &e))?;
    split(parse(&bytes, &path.display().to_string())?)
}

fn split(mut all: Vec<Digit>) -> Result<Split> {
    Random::new(SPLIT_SEED).shuffle(&mut all);
    if all.len() <= TRAINED_ON {
        return Err(Failure::new(format!("wanted more than {TRAINED_ON} digits, found {}", all.len())));
    }
    let held_out = all.split_off(TRAINED_ON);
    Ok(Split { learn: all, held_out })
}

/// Lines of 64 pixels from 0 to 16 and the class, gzipped.
fn parse(gzipped: &[u8], file: &str) -> Result<Vec<Digit>> {
    let mut text = String::new();
    GzDecoder::new(gzipped)
        .read_to_string(&mut text)
        .map_err(|e| Failure::new(format!("{file}: not gzipped text: {e}")))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            digit(line).ok_or_else(|| {
                Failure::new(format!(
                    "{file}, line {}: wanted {PIXELS} pixels of 0 to 16 and a class of 0 to 9",
                    at + 1
                ))
            })
        })
        .collect()
}

fn digit(line: &str) -> Option<Digit> {
    let numbers: Vec<u32> = line.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    let (&class, pixels) = numbers.split_last()?;
    if pixels.len() != PIXELS || pixels.iter().any(|&p| p > 16) || class as usize >= CLASSES {
        return None;
    }
    Some(Digit { pixels: std::array::from_fn(|i| pixels[i] as f32 / 16.0), class })
}

/// How a user's handwriting differs from that of the data.
#[derive(Clone, Copy)]
pub struct Hand {
    /// Slant to the right, in widths per height.
    pub slant: f32,
    /// Rotation of the sheet in degrees, counter-clockwise.
    pub rotation: f32,
}

impl Hand {
    /// The digit in this handwriting: every pixel is interpolated from its source position.
    pub fn write(self, digit: &Digit) -> Digit {
        let (sin, cos) = self.rotation.to_radians().sin_cos();
        let centre = (SIDE - 1) as f32 / 2.0;
        let pixels = std::array::from_fn(|i| {
            let (x, y) = ((i % SIDE) as f32 - centre, (i / SIDE) as f32 - centre);
            let (x, y) = (cos * x - sin * y, sin * x + cos * y);
            between(&digit.pixels, x + self.slant * y + centre, y + centre)
        });
        Digit { pixels, class: digit.class }
    }
}

/// The ink at a point between pixels, by bilinear interpolation; paper outside.
fn between(pixels: &[f32; PIXELS], x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let at = |column: f32, row: f32| {
        let inside = |v: f32| (0.0..SIDE as f32).contains(&v);
        if inside(column) && inside(row) { pixels[row as usize * SIDE + column as usize] } else { 0.0 }
    };
    let (fx, fy) = (x - left, y - top);
    let above = at(left, top) * (1.0 - fx) + at(left + 1.0, top) * fx;
    let below = at(left, top + 1.0) * (1.0 - fx) + at(left + 1.0, top + 1.0) * fx;
    above * (1.0 - fy) + below * fy
}

/// Digits side by side, two characters a pixel, with a caption under each.
pub fn draw(digits: &[(&Digit, String)]) -> String {
    const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
    let mut lines: Vec<String> = (0..SIDE)
        .map(|row| {
            let strip = |(digit, _): &(&Digit, String)| -> String {
                let pixels = &digit.pixels[row * SIDE..(row + 1) * SIDE];
                pixels.iter().map(|p| SHADES[(p * 4.0).round().clamp(0.0, 4.0) as usize]).collect()
            };
            digits.iter().map(strip).collect::<Vec<_>>().join("   ")
        })
        .collect();
    let captions: Vec<String> = digits.iter().map(|(_, caption)| format!("{caption:<16}")).collect();
    lines.push(captions.join("   "));
    lines.iter().map(|line| format!("   {}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_whole_and_fixed() {
        let split = shipped().unwrap();
        assert_eq!((split.learn.len(), split.held_out.len()), (1347, 450));
        assert!(split.held_out.iter().all(|d| !split.learn.contains(d)), "a held-out digit is learnt from");
        let again = shipped().unwrap();
        assert_eq!(split.held_out, again.held_out);
    }

    #[test]
    fn a_straight_hand_changes_nothing_and_a_quarter_turn_moves_corners() {
        let mut digit = shipped().unwrap().held_out[0].clone();
        assert_eq!(Hand { slant: 0.0, rotation: 0.0 }.write(&digit), digit);
        digit.pixels = [0.0; PIXELS];
        digit.pixels[SIDE - 1] = 1.0; // top right goes to top left, counter-clockwise
        let turned = Hand { slant: 0.0, rotation: 90.0 }.write(&digit);
        assert!((turned.pixels[0] - 1.0).abs() < 1e-5, "{:?}", turned.pixels);
    }

    #[test]
    fn a_line_that_is_not_a_digit_is_refused() {
        assert!(digit("1,2,3").is_none());
        assert!(digit(&format!("{}3", "0,".repeat(64))).is_some());
        assert!(digit(&format!("{}10", "0,".repeat(64))).is_none());
        assert!(digit(&format!("17,{}3", "0,".repeat(63))).is_none());
    }
}
