//! Who has heard the newest that each node has said of itself.
//!
//! As in production, a node says to each peer what has changed, and every second that it is still
//! so. To who has heard it, that says nothing new: a repeat goes to those alone that have not, since
//! they were cut off, were not there, or gave the node up and forgot. So what is said costs what
//! changes, and not nodes × nodes a second.

use crate::agenda::NodeIndex;

/// What was said last, by node.
pub(super) struct Mesh {
    words: Vec<Word>,
}

#[derive(Clone)]
struct Word {
    /// Rises with what a node says, whichever of its processes says it.
    number: u64,
    /// A bit for each node that has not heard it.
    unheard: Vec<u64>,
}

impl Mesh {
    pub(super) fn new(nodes: usize) -> Self {
        let word = Word {
            number: 0,
            unheard: vec![u64::MAX; nodes.div_ceil(64)],
        };
        Self {
            words: vec![word; nodes],
        }
    }

    /// A node says something new, that nobody has heard. Returns its number.
    pub(super) fn say(&mut self, by: NodeIndex) -> u64 {
        let word = &mut self.words[usize::from(by.0)];
        word.number += 1;
        word.unheard.fill(u64::MAX);
        word.number
    }

    /// What a node has said with this number is known somewhere.
    pub(super) fn heard(&mut self, (by, number): (NodeIndex, u64), at: NodeIndex) {
        let word = &mut self.words[usize::from(by.0)];
        if word.number == number {
            let (index, bit) = place(at);
            word.unheard[index] &= !bit;
        }
    }

    /// What a node has said is not known any more.
    pub(super) fn forgotten(&mut self, by: NodeIndex, at: NodeIndex) {
        let (index, bit) = place(at);
        self.words[usize::from(by.0)].unheard[index] |= bit;
    }

    /// Who has not heard the newest of a node, in their order; itself not counted.
    pub(super) fn unheard(&self, by: NodeIndex) -> Vec<NodeIndex> {
        let nodes = self.words.len() as u16;
        let words = self.words[usize::from(by.0)].unheard.iter().enumerate();
        let mut unheard = Vec::new();
        for (index, word) in words {
            let mut left = *word;
            while left != 0 {
                let node = index as u16 * 64 + left.trailing_zeros() as u16;
                left &= left - 1;
                if node < nodes && node != by.0 {
                    unheard.push(NodeIndex(node));
                }
            }
        }
        unheard
    }
}

fn place(node: NodeIndex) -> (usize, u64) {
    (usize::from(node.0 / 64), 1 << (node.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_repeated_to_who_has_not_heard_it() {
        let (mut mesh, by) = (Mesh::new(130), NodeIndex(1));
        let others = |mesh: &Mesh| {
            mesh.unheard(by)
                .into_iter()
                .map(|n| n.0)
                .collect::<Vec<_>>()
        };
        let first = mesh.say(by);
        assert_eq!(others(&mesh).len(), 129);
        (0..130).for_each(|node| mesh.heard((by, first), NodeIndex(node)));
        assert!(others(&mesh).is_empty());
        mesh.forgotten(by, NodeIndex(129));
        mesh.forgotten(by, NodeIndex(63));
        assert_eq!(others(&mesh), [63, 129]);
        let second = mesh.say(by);
        mesh.heard((by, first), NodeIndex(0));
        assert_eq!(others(&mesh).len(), 129, "that was the old one");
        mesh.heard((by, second), NodeIndex(0));
        assert_eq!(others(&mesh)[0], 2);
    }
}
