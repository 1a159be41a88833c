//! Differences between texts, line by line, after Myers ("An O(ND) Difference Algorithm and Its
//! Variations", 1986), with a bound on D: texts that have little in common are told as replaced.

/// Most differing lines that are searched for the shortest script.
const MAX_D: usize = 1000;
/// Equal lines that are shown around a difference.
const CONTEXT: usize = 3;

/// A line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Only before.
    Removed(&'a str),
    /// Only afterwards.
    Added(&'a str),
}

/// Lines that differ, with those around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Number of its first line before, from 1.
    pub before: usize,
    /// Number of its first line afterwards, from 1.
    pub after: usize,
    /// Its lines.
    pub lines: Vec<Line<'a>>,
}

/// Returns all lines with what happened to them.
fn script<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let start = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (head, before) = before.split_at(start);
    let after = after.get(start..).unwrap_or_default();
    let end = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    let (before, tail) = before.split_at(before.len() - end);
    let after = after.get(..after.len() - end).unwrap_or_default();
    let mut lines: Vec<Line<'a>> = head.iter().map(|line| Line::Same(line)).collect();
    match middle(before, after) {
        Some(middle) => lines.extend(middle),
        None => {
            lines.extend(before.iter().map(|line| Line::Removed(line)));
            lines.extend(after.iter().map(|line| Line::Added(line)));
        }
    }
    lines.extend(tail.iter().map(|line| Line::Same(line)));
    lines
}

/// Returns the shortest script, if it is short enough.
fn middle<'a>(before: &[&'a str], after: &[&'a str]) -> Option<Vec<Line<'a>>> {
    let (n, m) = (before.len(), after.len());
    let most = (n + m).min(MAX_D);
    // furthest[k + most + 1] is how far the best path on diagonal k has come in `before`.
    let mut furthest = vec![0usize; 2 * most + 3];
    let mut trace = Vec::new();
    let at = |diagonal: isize| usize::try_from(diagonal + most as isize + 1).ok();
    let get = |furthest: &[usize], diagonal: isize| {
        at(diagonal).and_then(|at| furthest.get(at)).copied().unwrap_or(0)
    };
    for d in 0..=most as isize {
        trace.push(furthest.clone());
        for k in (-d..=d).step_by(2) {
            let down = k == -d || (k != d && get(&furthest, k - 1) < get(&furthest, k + 1));
            let mut x = if down { get(&furthest, k + 1) } else { get(&furthest, k - 1) + 1 };
            while let Ok(y) = usize::try_from(x as isize - k)
                && x < n
                && y < m
                && before.get(x) == after.get(y)
            {
                x += 1;
            }
            if let Some(place) = at(k).and_then(|at| furthest.get_mut(at)) {
                *place = x;
            }
            if x >= n && x as isize - k >= m as isize {
                return back(before, after, &trace, most);
            }
        }
    }
    None
}

fn back<'a>(
    before: &[&'a str],
    after: &[&'a str],
    trace: &[Vec<usize>],
    most: usize,
) -> Option<Vec<Line<'a>>> {
    let get = |furthest: &[usize], diagonal: isize| {
        let at = usize::try_from(diagonal + most as isize + 1).ok();
        at.and_then(|at| furthest.get(at)).copied().unwrap_or(0)
    };
    let (mut x, mut y) = (before.len(), after.len());
    let mut lines = Vec::new();
    for (d, furthest) in trace.iter().enumerate().rev() {
        let (d, k) = (d as isize, x as isize - y as isize);
        let down = k == -d || (k != d && get(furthest, k - 1) < get(furthest, k + 1));
        let previous = if down { k + 1 } else { k - 1 };
        let to_x = if d == 0 { 0 } else { get(furthest, previous) };
        let to_y = if d == 0 { 0 } else { usize::try_from(to_x as isize - previous).ok()? };
        while x > to_x && y > to_y {
            lines.push(Line::Same(before.get(x - 1)?));
            (x, y) = (x - 1, y - 1);
        }
        if d > 0 {
            if down {
                lines.push(Line::Added(after.get(y.checked_sub(1)?)?));
            } else {
                lines.push(Line::Removed(before.get(x.checked_sub(1)?)?));
            }
        }
        (x, y) = (to_x, to_y);
    }
    lines.reverse();
    Some(lines)
}

/// Returns the hunks that turn one text into the other.
pub fn hunks<'a>(before: &'a str, after: &'a str) -> Vec<Hunk<'a>> {
    let before: Vec<&str> = before.lines().collect();
    let after: Vec<&str> = after.lines().collect();
    let all = script(&before, &after);
    let changed: Vec<usize> = all
        .iter()
        .enumerate()
        .filter(|(_, line)| !matches!(line, Line::Same(_)))
        .map(|(at, _)| at)
        .collect();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for at in changed {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(all.len()));
        match ranges.last_mut() {
            Some((_, end)) if *end >= from => *end = to,
            _ => ranges.push((from, to)),
        }
    }
    let count = |lines: &[Line<'_>], skip: fn(&Line<'_>) -> bool| {
        lines.iter().filter(|line| !skip(line)).count()
    };
    let hunk = |(from, to): (usize, usize)| {
        let above = all.get(..from).unwrap_or_default();
        Hunk {
            before: 1 + count(above, |line| matches!(line, Line::Added(_))),
            after: 1 + count(above, |line| matches!(line, Line::Removed(_))),
            lines: all.get(from..to).unwrap_or_default().to_vec(),
        }
    };
    ranges.into_iter().map(hunk).collect()
}

/// Returns hunks in the unified format.
pub fn unified(hunks: &[Hunk<'_>]) -> String {
    let mut text = String::new();
    for hunk in hunks {
        let before = hunk.lines.iter().filter(|line| !matches!(line, Line::Added(_))).count();
        let after = hunk.lines.iter().filter(|line| !matches!(line, Line::Removed(_))).count();
        let head = format!("@@ -{},{before} +{},{after} @@\n", hunk.before, hunk.after);
        text.push_str(&head);
        for line in &hunk.lines {
            let (sign, line) = match line {
                Line::Same(line) => (' ', line),
                Line::Removed(line) => ('-', line),
                Line::Added(line) => ('+', line),
            };
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let after = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n";
        let expected = "@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+10\n";
        assert_eq!(unified(&hunks(before, after)), expected);
        assert_eq!(hunks(before, before), []);
        assert_eq!(unified(&hunks("", "a\n")), "@@ -1,0 +1,1 @@\n+a\n");
    }

    #[test]
    fn texts_with_nothing_in_common_are_replaced() {
        let text = |word: &str| (0..2000).map(|n| format!("{word} {n}\n")).collect::<String>();
        let (before, after) = (text("a"), text("b"));
        assert_eq!(hunks(&before, &after)[0].lines.len(), 4000);
    }

    proptest! {
        #[test]
        fn the_script_makes_one_text_of_the_other(
            before in proptest::collection::vec("[ab]{0,1}", 0..30),
            after in proptest::collection::vec("[ab]{0,1}", 0..30),
        ) {
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            let after: Vec<&str> = after.iter().map(String::as_str).collect();
            let script = script(&before, &after);
            let side = |keep: fn(&Line<'_>) -> bool| -> Vec<&str> {
                script.iter().filter(|line| keep(line)).map(|line| match line {
                    Line::Same(text) | Line::Removed(text) | Line::Added(text) => *text,
                }).collect()
            };
            prop_assert_eq!(side(|line| !matches!(line, Line::Added(_))), before);
            prop_assert_eq!(side(|line| !matches!(line, Line::Removed(_))), after);
        }
    }
}
