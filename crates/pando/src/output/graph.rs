//! Draws a commit graph in text: one lane for each line of descent, newest commit first, as `git
//! log --graph` does. Pure: rows in, prefixes out.

use std::fmt::Write as _;

/// One commit with its parents; children come before their parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// The commit.
    pub id: &'a str,
    /// The commits before it.
    pub parents: Vec<&'a str>,
}

/// What stands left of one commit's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Lines above this commit, where lanes meet in it.
    pub above: Vec<String>,
    /// Left of the first line.
    pub first: String,
    /// Left of each further line of the same commit.
    pub rest: String,
    /// Lines below this commit, where lanes to its further parents begin.
    pub below: Vec<String>,
}

/// Returns what stands left of each commit.
pub fn draw(nodes: &[Node<'_>]) -> Vec<Drawn> {
    let mut lanes: Vec<Option<&str>> = Vec::new();
    nodes.iter().map(|node| step(&mut lanes, node)).collect()
}

fn step<'a>(lanes: &mut Vec<Option<&'a str>>, node: &Node<'a>) -> Drawn {
    let mine = match lanes.iter().position(|lane| *lane == Some(node.id)) {
        Some(index) => index,
        None => open(lanes, node.id),
    };
    // Other lanes that wait for the same commit end here.
    let mut above = Vec::new();
    for index in 0..lanes.len() {
        if index != mine && lanes[index] == Some(node.id) {
            above.push(joint(lanes, index, '/'));
            lanes[index] = None;
        }
    }
    trim(lanes);
    let first = row(lanes, |index, lane| match lane {
        _ if index == mine => '*',
        Some(_) => '|',
        None => ' ',
    });
    let mut parents = node.parents.iter().copied();
    let next = parents.next();
    // A parent that another lane waits for already is joined when it is drawn.
    lanes[mine] = next;
    let mut below = Vec::new();
    for parent in parents {
        let index = open(lanes, parent);
        below.push(joint(lanes, index, '\\'));
    }
    trim(lanes);
    let rest = row(lanes, |_, lane| if lane.is_some() { '|' } else { ' ' });
    Drawn { above, first, rest, below }
}

fn trim(lanes: &mut Vec<Option<&str>>) {
    while lanes.last() == Some(&None) {
        lanes.pop();
    }
}

fn open<'a>(lanes: &mut Vec<Option<&'a str>>, id: &'a str) -> usize {
    match lanes.iter().position(Option::is_none) {
        Some(index) => {
            lanes[index] = Some(id);
            index
        }
        None => {
            lanes.push(Some(id));
            lanes.len() - 1
        }
    }
}

fn row(lanes: &[Option<&str>], mark: impl Fn(usize, &Option<&str>) -> char) -> String {
    let mut text = String::new();
    for (index, lane) in lanes.iter().enumerate() {
        let _ = write!(text, "{} ", mark(index, lane));
    }
    text
}

/// Returns a line in which the lane `at` leans towards its left neighbour.
fn joint(lanes: &[Option<&str>], at: usize, slope: char) -> String {
    let text = row(lanes, |index, lane| if index != at && lane.is_some() { '|' } else { ' ' });
    let between = (2 * at).saturating_sub(1);
    let leaning = text.chars().enumerate();
    let leaning: String = leaning.map(|(i, c)| if i == between { slope } else { c }).collect();
    leaning.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(graph: &[(&'static str, &[&'static str])]) -> String {
        let nodes: Vec<Node> =
            graph.iter().map(|(id, parents)| Node { id, parents: parents.to_vec() }).collect();
        let mut text = String::new();
        for (node, drawn) in nodes.iter().zip(draw(&nodes)) {
            for line in &drawn.above {
                let _ = writeln!(text, "{line}");
            }
            let _ = writeln!(text, "{}{}", drawn.first, node.id);
            for line in &drawn.below {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    #[test]
    fn a_line_is_a_line() {
        assert_eq!(text(&[("c", &["b"]), ("b", &["a"]), ("a", &[])]), "* c\n* b\n* a\n");
    }

    #[test]
    fn branches_stand_side_by_side_until_they_meet() {
        let graph: &[(&str, &[&str])] =
            &[("d", &["b"]), ("c", &["b"]), ("x", &["a"]), ("b", &["a"]), ("a", &[])];
        assert_eq!(text(graph), "* d\n| * c\n| | * x\n|/  |\n*   | b\n|  /\n* a\n");
    }

    proptest! {
        #[test]
        fn drawing_is_total(parents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..20)) {
            let names: Vec<String> = (0..parents.len()).map(|index| format!("n{index}")).collect();
            let nodes: Vec<Node> = parents.iter().enumerate().map(|(index, later)| Node {
                id: &names[index],
                parents: later.iter().map(|offset| {
                    let at = (index + 1 + usize::from(*offset)) % names.len();
                    names[at].as_str()
                }).collect(),
            }).collect();
            prop_assert_eq!(draw(&nodes).len(), nodes.len());
        }
    }
}
