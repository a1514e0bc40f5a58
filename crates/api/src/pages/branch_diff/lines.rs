//! Two texts, line beside line.

use std::time::Instant;

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

/// What is shown of one definition. Whoever wants all of it has the JSON.
const MOST_LINES: usize = 1_000;
const MOST_BYTES: usize = 64 << 10;

/// One line of the table; none: that side has no such line.
#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub left: Option<&'a str>,
    pub right: Option<&'a str>,
    pub is_same: bool,
}

/// Up to [`MOST_LINES`] of each. What is not compared by `until` counts as changed.
pub fn side_by_side<'a>(left: &'a str, right: &'a str, until: Instant) -> Vec<Row<'a>> {
    let (left, right): (Vec<&str>, Vec<&str>) = (first(left), first(right));
    let mut rows = Vec::new();
    for op in capture_diff_slices_deadline(Algorithm::Patience, &left, &right, Some(until)) {
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

/// Whether there is more than is shown.
pub fn is_long(text: &str) -> bool {
    text.len() > MOST_BYTES || text.lines().nth(MOST_LINES).is_some()
}

fn first(text: &str) -> Vec<&str> {
    let bytes = text.floor_char_boundary(MOST_BYTES);
    text[..bytes].lines().take(MOST_LINES).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn long_texts_end_and_take_no_time() {
        let hostile = |offset: usize| {
            let mut text = String::new();
            for n in 0..200_000 {
                text.push(char::from(
                    b'a' + u8::try_from((n * n + offset) % 7).unwrap(),
                ));
                text.push('\n');
            }
            text
        };
        let (left, right) = (hostile(0), hostile(3));
        assert!(is_long(&left) && !is_long("a\nb"));
        let begun = Instant::now();
        let rows = side_by_side(&left, &right, begun + Duration::from_millis(100));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert!(rows.len() <= 2 * MOST_LINES);
    }

    #[test]
    fn what_changed_stands_beside_what_it_was() {
        let row = |left, right, is_same| Row {
            left,
            right,
            is_same,
        };
        assert_eq!(
            side_by_side("a\nb\nc", "a\nB\nB2\nc", soon()),
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
            let rows = side_by_side(&left, &right, soon());
            let lines = |side: fn(&Row<'_>) -> Option<String>| rows.iter().filter_map(side).collect::<Vec<_>>();
            let expected: Vec<_> = left.lines().map(str::to_owned).collect();
            prop_assert_eq!(lines(|row| row.left.map(str::to_owned)), expected);
            let expected: Vec<_> = right.lines().map(str::to_owned).collect();
            prop_assert_eq!(lines(|row| row.right.map(str::to_owned)), expected);
            prop_assert!(rows.iter().all(|row| row.is_same == (row.left == row.right)) || left != right);
        }
    }
}
