//! The directed links of a branch: their counts, and the faults on each.

use pando_model::Name;
use pando_model::network::{End, Link};

use crate::counts::Counts;
use crate::fault::LinkFault;

/// A link, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkNumber(pub u32);

/// An end of links, by number: a node, or, behind the last of them, the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndNumber(pub u16);

/// One link.
#[derive(Debug)]
pub struct LinkState {
    /// Who sends.
    pub from: EndNumber,
    /// Who receives.
    pub to: EndNumber,
    /// What went over it.
    pub counts: Counts,
    /// What works on it: partitions first, then the others in the order in which they were given.
    pub faults: Vec<LinkFault>,
    /// Bytes of its frames that wait for their time.
    pub delayed_bytes: usize,
}

/// All links that something went over or works on.
#[derive(Debug)]
pub struct Links {
    /// Sorted.
    nodes: Vec<Name>,
    /// By sender and receiver, the number of their link plus one; zero without one.
    numbers: Vec<u32>,
    links: Vec<LinkState>,
}

impl Links {
    /// Returns no links, between these nodes and the gateway. A node may be named more than once.
    pub fn new(mut nodes: Vec<Name>) -> Self {
        nodes.sort_unstable();
        nodes.dedup();
        let ends = nodes.len() + 1;
        Self { nodes, numbers: vec![0; ends * ends], links: Vec::new() }
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[Name] {
        &self.nodes
    }

    /// The gateway's number.
    pub fn gateway(&self) -> EndNumber {
        EndNumber(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX))
    }

    /// Returns a node's number.
    pub fn node(&self, name: &Name) -> Option<EndNumber> {
        let place = self.nodes.binary_search(name).ok()?;
        u16::try_from(place).ok().map(EndNumber)
    }

    /// Returns an end's number, if there is such a node.
    pub fn end_number(&self, end: &End) -> Option<EndNumber> {
        match end {
            End::Node(name) => self.node(name),
            End::Gateway => Some(self.gateway()),
        }
    }

    /// Returns the end of a number.
    pub fn end(&self, number: EndNumber) -> End {
        self.nodes.get(usize::from(number.0)).map_or(End::Gateway, |name| End::Node(name.clone()))
    }

    /// Returns the link of a number.
    pub fn link(&self, state: &LinkState) -> Link {
        Link { from: self.end(state.from), to: self.end(state.to) }
    }

    /// Returns the number of the link between two ends, which begins to exist now if it did not.
    pub fn between(&mut self, from: EndNumber, to: EndNumber) -> LinkNumber {
        let place = usize::from(from.0) * (self.nodes.len() + 1) + usize::from(to.0);
        let known = self.numbers[place];
        if known != 0 {
            return LinkNumber(known - 1);
        }
        self.links.push(LinkState {
            from,
            to,
            counts: Counts::default(),
            faults: Vec::new(),
            delayed_bytes: 0,
        });
        // There are at most as many as places, and those are fewer than 2^22.
        let number = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        self.numbers[place] = number;
        LinkNumber(number - 1)
    }

    /// Returns a link's state.
    pub fn state(&mut self, number: LinkNumber) -> &mut LinkState {
        &mut self.links[number.0 as usize]
    }

    /// Returns a link's counts.
    pub fn counts(&mut self, number: LinkNumber) -> &mut Counts {
        &mut self.state(number).counts
    }

    /// Returns the ends of a link.
    pub fn name(&self, number: LinkNumber) -> Link {
        self.link(&self.links[number.0 as usize])
    }

    /// All links with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (LinkNumber, &LinkState)> {
        (0..).map(LinkNumber).zip(&self.links)
    }

    /// All links, by number.
    pub fn iter(&self) -> impl Iterator<Item = &LinkState> {
        self.links.iter()
    }

    /// All links, by number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut LinkState> {
        self.links.iter_mut()
    }
}
