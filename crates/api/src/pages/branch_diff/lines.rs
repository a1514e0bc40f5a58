//! Two texts, line beside line.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// One line of the table; none: that side has no such line.
#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub left: Option<&'a str>,
    pub right: Option<&'a str>,
    pub is_same: bool,
}

pub fn side_by_side<'a>(left: &'a str, right: &'a str) -> Vec<Row<'a>> {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.lines().collect(), right.lines().collect());
    let mut rows = Vec::new();
    for op in capture_diff_slices(Algorithm::Patience, &left, &right) {
        let is_same = matches!(op, DiffOp::Equal { .. });
        let (old, new) = (op.old_range(), op.new_range());
        for n in 0..old.len().max(new.len()) {
            rows.push(Row {
                left: old.clone().nth(n).map(|line| left[line]),
                right: new.clone().nth(n).map(|line| right[line]),
                is_same,
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_changed_stands_beside_what_it_was() {
        let row = |left, right, is_same| Row {
            left,
            right,
            is_same,
        };
        assert_eq!(
            side_by_side("a\nb\nc", "a\nB\nB2\nc"),
            [
                row(Some("a"), Some("a"), true),
                row(Some("b"), Some("B"), false),
                row(None, Some("B2"), false),
                row(Some("c"), Some("c"), true),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_line_is_lost_on_either_side(left in "[ab\n]{0,40}", right in "[ab\n]{0,40}") {
            let rows = side_by_side(&left, &right);
            let lines = |side: fn(&Row<'_>) -> Option<String>| rows.iter().filter_map(side).collect::<Vec<_>>();
            let expected: Vec<_> = left.lines().map(str::to_owned).collect();
            prop_assert_eq!(lines(|row| row.left.map(str::to_owned)), expected);
            let expected: Vec<_> = right.lines().map(str::to_owned).collect();
            prop_assert_eq!(lines(|row| row.right.map(str::to_owned)), expected);
            prop_assert!(rows.iter().all(|row| row.is_same == (row.left == row.right)) || left != right);
        }
    }
}
