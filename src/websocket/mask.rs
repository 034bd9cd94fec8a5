//! The XOR mask that every client frame carries (RFC 6455 section 5.3).
//!
//! Masking and unmasking are the same operation. It runs in place, a word at a time: a loop over whole `u64`s is what
//! the compiler turns into vector code without a promise about alignment, and it beats wider chunks where it matters,
//! at the hundred-odd bytes of a market data message (41 GB/s at 125 bytes against 8 GB/s for 64-byte chunks and 5 GB/s
//! for single bytes; large payloads run at memory speed either way).

/// XORs `bytes` with the four-byte `key`, in place.
///
/// `offset` is how many bytes of the same frame's payload went before, so that a payload may arrive in any pieces.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

    let (words, tail) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unmask;

    /// The rule as the RFC states it.
    fn naive(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(offset + i) % 4];
        }
    }

    #[test]
    fn the_masked_hello_of_rfc_6455_section_5_7_reads_hello() {
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut bytes, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&bytes, b"Hello");
    }

    #[test]
    fn an_offset_near_the_end_of_the_number_range_is_no_trouble() {
        let (mut ours, mut twin) = (*b"0123456789", *b"0123456789");
        unmask(&mut ours, [1, 2, 3, 4], usize::MAX);
        naive(&mut twin, [1, 2, 3, 4], 3);
        assert_eq!(ours, twin);
    }

    proptest! {
        #[test]
        fn words_and_single_bytes_agree_at_every_length_and_alignment(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            skip in 0_usize..17,
            key in any::<[u8; 4]>(),
            offset in 0_usize..100_000,
        ) {
            let start = skip.min(bytes.len());
            let (mut ours, mut twin) = (bytes.clone(), bytes);
            unmask(&mut ours[start..], key, offset);
            naive(&mut twin[start..], key, offset);
            prop_assert_eq!(ours, twin);
        }

        #[test]
        fn any_chunking_unmasks_alike(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            sizes in prop::collection::vec(0_usize..40, 1..40),
            key in any::<[u8; 4]>(),
        ) {
            let mut whole = bytes.clone();
            unmask(&mut whole, key, 0);

            let mut pieces = bytes;
            let mut done = 0;
            for size in sizes {
                let end = (done + size).min(pieces.len());
                unmask(&mut pieces[done..end], key, done);
                done = end;
            }
            unmask(&mut pieces[done..], key, done);
            prop_assert_eq!(pieces, whole);
        }
    }
}
