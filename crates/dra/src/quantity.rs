//! Quantities as an API server writes them, so that what is read back is what was sent.

/// A whole number in its canonical form (`k8s.io/apimachinery/pkg/api/resource`, Quantity): the largest suffix that leaves a whole
/// number. Multiples of 1024 are binary, as memory is; others decimal.
pub(crate) fn quantity(number: u64) -> String {
    let (step, suffixes): (u64, &[&str]) = if number.is_multiple_of(1024) {
        (1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    } else {
        (1000, &["", "k", "M", "G", "T", "P", "E"])
    };
    let (mut number, mut place) = (number, 0);
    while number > 0 && number.is_multiple_of(step) && place + 1 < suffixes.len() {
        (number, place) = (number / step, place + 1);
    }
    format!("{number}{}", suffixes[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_has_the_largest_suffix_that_leaves_a_whole_number() {
        assert_eq!(quantity(80 << 30), "80Gi");
        assert_eq!(quantity(85_520_809_984), "81559Mi");
        assert_eq!((quantity(0), quantity(7), quantity(132)), ("0".into(), "7".into(), "132".into()));
        assert_eq!((quantity(3_000), quantity(1_000_000)), ("3k".into(), "1M".into()));
    }
}
