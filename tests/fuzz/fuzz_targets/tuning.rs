//! Any text is a tuning or an error with a message; a tuning's text form parses back to the same table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft::profile::Tuning;

fuzz_target!(|text: &str| {
    match text.parse::<Tuning>() {
        Ok(tuning) => {
            let printed = tuning.to_string();
            let again = printed.parse::<Tuning>().unwrap_or_else(|e| panic!("{e} in\n{printed}"));
            assert_eq!(again, tuning);
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
});
