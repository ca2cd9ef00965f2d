//! Quantities as an API server writes them, so that what is read back is what was sent.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A whole number in its canonical form (`k8s.io/apimachinery/pkg/api/resource`, Quantity): the largest suffix that leaves a whole
/// number. Multiples of 1024 are binary, as memory is; others decimal.
pub(crate) fn quantity(number: u64) -> Quantity {
    let (step, suffixes): (u64, &[&str]) = if number.is_multiple_of(1024) {
        (1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    } else {
        (1000, &["", "k", "M", "G", "T", "P", "E"])
    };
    let (mut number, mut place) = (number, 0);
    while number > 0 && number.is_multiple_of(step) && place + 1 < suffixes.len() {
        (number, place) = (number / step, place + 1);
    }
    Quantity(format!("{number}{}", suffixes[place]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_has_the_largest_suffix_that_leaves_a_whole_number() {
        let written = |number| quantity(number).0;
        assert_eq!(written(80 << 30), "80Gi");
        assert_eq!(written(85_520_809_984), "81559Mi");
        assert_eq!((written(0), written(7), written(132)), ("0".into(), "7".into(), "132".into()));
        assert_eq!((written(3_000), written(1_000_000)), ("3k".into(), "1M".into()));
    }
}
