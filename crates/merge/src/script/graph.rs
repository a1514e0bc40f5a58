//! Statements as nodes, what must come first as edges, and the order that follows.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use super::Statement;
use crate::catalog::FactId;

/// What is done with a fact. One fact may take several steps, each at its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Taking a table from its parents.
    Detach,
    /// Dropping a column's default, or emptying a view whose dependencies run in a circle.
    Loosen,
    Drop,
    /// CREATE or ALTER: afterwards the fact is as it should be, but for the steps below.
    Make,
    /// Setting a default, or what a stub stood for.
    Complete,
    /// Giving a table to its parents.
    Attach,
    /// OWNED BY of a sequence.
    Own,
    /// All grants on an object that is new.
    Grant,
    /// What needs the object's indexes or comes after its other parts (replica identity).
    Late,
}

pub type Key<'a> = (&'a FactId, Step);

/// Where a node stands among those that could come next: drops before makes, then the kinds' order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub phase: u8,
    pub order: u16,
}

#[derive(Debug)]
struct Node<'a> {
    key: Key<'a>,
    rank: Rank,
    statements: Vec<Statement>,
}

#[derive(Debug, Default)]
pub struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    by_key: HashMap<Key<'a>, usize>,
    /// Steps that another step does along: the columns of a CREATE TABLE, the parts of a dropped table.
    aliases: HashMap<Key<'a>, Key<'a>>,
    edges: Vec<(Key<'a>, Key<'a>)>,
}

/// The groups of steps that need each other, each in rank order.
pub type Cycles<'a> = Vec<Vec<Key<'a>>>;

impl<'a> Graph<'a> {
    /// A step with its statements. Steps without statements count too: others may wait for them.
    pub fn add(&mut self, key: Key<'a>, rank: Rank, statements: Vec<Statement>) {
        if let Some(&at) = self.by_key.get(&key) {
            self.nodes[at].statements.extend(statements);
            return;
        }
        self.by_key.insert(key, self.nodes.len());
        self.nodes.push(Node {
            key,
            rank,
            statements,
        });
    }

    /// `step` is done by `by`.
    pub fn alias(&mut self, step: Key<'a>, by: Key<'a>) {
        self.aliases.insert(step, by);
    }

    /// `first` comes before `then`. Either may not exist (yet): then the edge says nothing.
    pub fn edge(&mut self, first: Key<'a>, then: Key<'a>) {
        self.edges.push((first, then));
    }

    pub fn contains(&self, key: Key<'a>) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, mut key: Key<'a>) -> Option<usize> {
        // Aliases run from parts to containers: at most a handful of hops.
        for _ in 0..8 {
            match self.aliases.get(&key) {
                Some(&by) => key = by,
                None => break,
            }
        }
        self.by_key.get(&key).copied()
    }

    fn resolved_edges(&self) -> Vec<Vec<usize>> {
        let mut after = vec![BTreeSet::new(); self.nodes.len()];
        for &(first, then) in &self.edges {
            if let (Some(a), Some(b)) = (self.find(first), self.find(then))
                && a != b
            {
                after[a].insert(b);
            }
        }
        after
            .into_iter()
            .map(|set| set.into_iter().collect())
            .collect()
    }

    /// The statements in an order that all edges agree with; of those that could come next, the one of least rank,
    /// then that of the least name, so that the answer is always the same.
    ///
    /// # Errors
    /// The cycles, if there are any.
    pub fn sort(mut self) -> Result<Vec<Statement>, Box<(Self, Cycles<'a>)>> {
        let after = self.resolved_edges();
        let order = kahn(&self.nodes, &after);
        if order.len() < self.nodes.len() {
            let cycles = self.cycles(&after);
            return Err(Box::new((self, cycles)));
        }
        Ok(self.take(&order))
    }

    /// As [`Self::sort`], but where a cycle is left, rank decides. Only for what nothing could cut.
    pub fn force(mut self) -> Vec<Statement> {
        let mut after = self.resolved_edges();
        let mut component = vec![usize::MAX; self.nodes.len()];
        for (number, group) in components(&after).into_iter().enumerate() {
            for node in group {
                component[node] = number;
            }
        }
        for (a, list) in after.iter_mut().enumerate() {
            list.retain(|&b| component[a] != component[b]);
        }
        let order = kahn(&self.nodes, &after);
        self.take(&order)
    }

    fn take(&mut self, order: &[usize]) -> Vec<Statement> {
        order
            .iter()
            .flat_map(|&node| std::mem::take(&mut self.nodes[node].statements))
            .collect()
    }

    fn cycles(&self, after: &[Vec<usize>]) -> Cycles<'a> {
        components(after)
            .into_iter()
            .filter(|group| group.len() > 1)
            .map(|mut group| {
                group.sort_by_key(|&n| (self.nodes[n].rank, self.nodes[n].key));
                group.into_iter().map(|n| self.nodes[n].key).collect()
            })
            .collect()
    }
}

/// Kahn's algorithm with a heap; what lies on cycles is missing from the answer.
fn kahn(nodes: &[Node<'_>], after: &[Vec<usize>]) -> Vec<usize> {
    let mut waits = vec![0_usize; nodes.len()];
    for &b in after.iter().flatten() {
        waits[b] += 1;
    }
    let entry = |n: usize| Reverse((nodes[n].rank, nodes[n].key, n));
    let mut ready: BinaryHeap<_> = (0..nodes.len())
        .filter(|&n| waits[n] == 0)
        .map(entry)
        .collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse((_, _, node))) = ready.pop() {
        order.push(node);
        for &next in &after[node] {
            waits[next] -= 1;
            if waits[next] == 0 {
                ready.push(entry(next));
            }
        }
    }
    order
}

/// Tarjan's strongly connected components, with a stack of its own instead of the thread's.
fn components(after: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = after.len();
    let (mut index, mut low) = (vec![UNSEEN; count], vec![0; count]);
    let mut on_stack = vec![false; count];
    let (mut stack, mut groups, mut next_index) = (Vec::new(), Vec::new(), 0);
    for root in 0..count {
        if index[root] != UNSEEN {
            continue;
        }
        let mut calls = vec![(root, 0_usize)];
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                index[node] = next_index;
                low[node] = next_index;
                next_index += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if let Some(&to) = after[node].get(edge) {
                calls.push((node, edge + 1));
                if index[to] == UNSEEN {
                    calls.push((to, 0));
                } else if on_stack[to] {
                    low[node] = low[node].min(index[to]);
                }
                continue;
            }
            if low[node] == index[node] {
                let mut group = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    group.push(member);
                    if member == node {
                        break;
                    }
                }
                groups.push(group);
            }
            if let Some(&(caller, _)) = calls.last() {
                low[caller] = low[caller].min(low[node]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;

    fn statement(sql: &str) -> Vec<Statement> {
        vec![Statement {
            sql: sql.to_owned(),
            serves: None,
            makes: None,
            evaluates: false,
        }]
    }

    #[test]
    fn edges_decide_then_rank_then_name_and_cycles_are_told() {
        let ids: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|n| FactId::object(Kind::Table, "s", n))
            .collect();
        let build = |edges: &[(usize, usize)]| {
            let mut graph = Graph::default();
            for (at, id) in ids.iter().enumerate() {
                let rank = Rank {
                    phase: 1,
                    order: u16::from(at == 0),
                };
                graph.add((id, Step::Make), rank, statement(&id.object));
            }
            for &(a, b) in edges {
                graph.edge((&ids[a], Step::Make), (&ids[b], Step::Make));
            }
            graph
        };
        let names = |s: Vec<Statement>| s.into_iter().map(|s| s.sql).collect::<String>();
        assert_eq!(names(build(&[]).sort().unwrap()), "bca");
        assert_eq!(names(build(&[(0, 2)]).sort().unwrap()), "bac");
        let (graph, cycles) = *build(&[(0, 1), (1, 0), (1, 2)]).sort().unwrap_err();
        assert_eq!(cycles, [[(&ids[1], Step::Make), (&ids[0], Step::Make)]]);
        assert_eq!(names(graph.force()), "bca");
    }
}
