//! Offers of extensions: what is agreed on is what was offered, and doesn't depend on how the offers are spread over headers.
//!
//! The input is the values of the headers, one a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::internals::websocket::extension::agree;

fuzz_target!(|text: &str| {
    let agreed = agree(text.split('\n'));
    match &agreed {
        Err(wrong) => {
            // It stands where it is told.
            let whole = text.replace('\n', ",");
            assert_eq!(whole.as_bytes().get(wrong.at).filter(|_| wrong.found.is_some()).copied(), wrong.found);
            assert!(wrong.to_string().contains(wrong.expected));
        }
        Ok(None) => {}
        Ok(Some(agreed)) => {
            assert!(text.contains("permessage-deflate"));
            assert!(agreed.server_window_bits.is_none_or(|bits| (9..=15).contains(&bits)));
            assert!(agreed.server_window_bits.is_none() || text.contains("server_max_window_bits"));
            assert!(!agreed.server_no_context_takeover || text.contains("server_no_context_takeover"));
            // The answer is written as an offer is, and means the same.
            assert_eq!(agree([&*agreed.answer()].into_iter()), Ok(Some(*agreed)));
        }
    }
    if agreed.is_ok() {
        assert_eq!(agree([&*text.replace('\n', ",")].into_iter()), agreed, "one header or several");
    }
});
