//! Arithmetic on tweaks: GF(2^128) with the polynomial x^128 + x^7 + x^2 + x + 1, byte 0 lowest (IEEE Std 1619 section 5.2).

/// A block as a number: its first byte holds the lowest coefficients.
pub(super) type Element = u128;

/// `element` times x. Constant time.
#[inline]
pub(super) const fn times_x(element: Element) -> Element {
    #[expect(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "spreads the top bit into a mask")]
    let carry = ((element as i128) >> 127) as u128;
    (element << 1) ^ (carry & 0x87)
}

/// `element` times x^`power`. The time depends on `power` alone, which is a position and no secret.
pub(super) const fn times_x_to_the(mut element: Element, mut power: usize) -> Element {
    while power > 0 {
        // Up to 64 bits fall out at the top at once; times 0x87 they still fit 128.
        let step = if power < 64 { power } else { 64 };
        let high = element >> (128 - step);
        element = (element << step) ^ high ^ (high << 1) ^ (high << 2) ^ (high << 7);
        power -= step;
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_repeated_doublings() {
        let start = 0x8123_4567_89ab_cdef_fedc_ba98_7654_3210;
        let mut stepped = start;
        for power in 0..=600 {
            assert_eq!(times_x_to_the(start, power), stepped, "x^{power}");
            stepped = times_x(stepped);
        }
    }

    #[test]
    fn the_top_bit_comes_back_as_the_polynomial() {
        assert_eq!(times_x(1 << 127), 0x87);
        assert_eq!(times_x(1), 2);
    }
}
