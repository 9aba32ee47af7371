//! A row of a file's map: which of its chunks a peer has, a bit for each chunk that is shown.

use relay_protocol::Bitfield;

/// Chunks of a map, at most: of larger files every 2nd, 4th, ... chunk is shown. About as many as
/// a screen has columns.
const COLUMNS_MAX: u32 = 4096;

/// Every so many chunks of such a file one is shown; a power of two.
pub(crate) fn stride_of(chunk_count: u32) -> u32 {
    chunk_count.div_ceil(COLUMNS_MAX).next_power_of_two().max(1)
}

/// Appends the row of a peer that has these chunks: whole words where every chunk is shown, else bit by bit.
pub(crate) fn push_row(bits: &mut Vec<u8>, have: &Bitfield, stride: u32) {
    let row_bytes = have.len().div_ceil(stride).div_ceil(8) as usize;
    let end = bits.len() + row_bytes;
    if stride == 1 {
        bits.extend(have.words().iter().flat_map(|word| word.to_le_bytes()));
        bits.resize(end, 0);
        return;
    }
    bits.resize(end, 0);
    let row = &mut bits[end - row_bytes..];
    for (column, chunk) in (0..have.len()).step_by(stride as usize).enumerate() {
        row[column / 8] |= u8::from(have.contains(chunk)) << (column % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_every_strideth_chunk() {
        for (chunk_count, stride) in [(1, 1), (63, 1), (64, 1), (100, 1), (100, 4), (1000, 2)] {
            let mut have = Bitfield::empty(chunk_count);
            for chunk in (0..chunk_count).filter(|chunk| chunk % 3 == 0) {
                have.insert(chunk);
            }
            let columns = chunk_count.div_ceil(stride);
            // There may be rows before it.
            let mut bits = vec![0xaa; 7];
            push_row(&mut bits, &have, stride);
            assert_eq!(bits.len(), 7 + columns.div_ceil(8) as usize);
            let row = &bits[7..];
            for column in 0..columns {
                let shown = row[column as usize / 8] >> (column % 8) & 1 == 1;
                assert_eq!(shown, have.contains(column * stride), "{chunk_count} by {stride}");
            }
        }
    }

    #[test]
    fn a_map_has_no_more_columns_than_a_screen() {
        for chunk_count in [0, 1, COLUMNS_MAX, COLUMNS_MAX + 1, 5 * COLUMNS_MAX, 1 << 24] {
            let stride = stride_of(chunk_count);
            assert!(stride.is_power_of_two() && chunk_count.div_ceil(stride) <= COLUMNS_MAX);
        }
        assert_eq!(stride_of(COLUMNS_MAX), 1);
    }
}
