//! Prompts that pass ComfyUI's validation and end its worker thread: HTTP goes on answering, nothing runs any more.
//! They are refused here. Seen of 0.3.64 and 0.8.0: a node without `inputs` anywhere in the prompt; a link to a node
//! that does not exist in an input that its class does not declare; a chain of links longer than Python's stack.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Flaw, Graph};
use crate::comfy::errors::{PromptError, clip};

/// ComfyUI walks links recursively: a chain of 980 nodes ran, one of 1000 ended the thread.
const MAX_DEPTH: usize = 900;

/// Before validation: nobody follows longer chains, reachable from an output or not.
pub(super) fn depth(graph: &Graph) -> Result<(), PromptError> {
    let depth = longest_chain(graph);
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    let details = format!("{depth} nodes in a row; ComfyUI's worker follows at most {MAX_DEPTH}");
    Err(PromptError::new("invalid_prompt", "The prompt's chain of nodes is too long", details))
}

/// After validation: what it did not look at.
pub(super) fn executable(graph: &Graph, outputs: &[String]) -> Result<(), PromptError> {
    if let Some((id, _)) = graph.nodes.iter().find(|(_, node)| node.flaw == Some(Flaw::NoInputs)) {
        let message = "Cannot execute because a node is missing the inputs property.";
        return Err(PromptError::node(message, id));
    }
    for (id, node) in graph.ancestors(outputs) {
        if let Some((input, to)) = node.links().find(|(_, to)| !graph.nodes.contains_key(&**to)) {
            let (input, to) = (clip(input, 200), clip(&to, 200));
            let message =
                format!("Cannot execute because input {input} is linked to node {to}, which does not exist.");
            return Err(PromptError::node(message, id));
        }
    }
    Ok(())
}

/// Nodes on the longest chain of links; those of cycles count together, whatever their order.
fn longest_chain(graph: &Graph) -> usize {
    let present = |to: &Cow<'_, str>| graph.nodes.get_index_of(&**to);
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    let mut waiting: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    for (at, node) in graph.nodes.values().enumerate() {
        let from: Vec<usize> = node.links().filter_map(|(_, to)| present(&to)).collect();
        waiting.push(from.len());
        from.into_iter().for_each(|from| users[from].push(at));
    }
    let mut ready: Vec<usize> = (0..waiting.len()).filter(|at| waiting[*at] == 0).collect();
    let mut depth: HashMap<usize, usize> = HashMap::new();
    let (mut longest, mut seen) = (0, 0);
    while let Some(at) = ready.pop() {
        seen += 1;
        let own = depth.remove(&at).unwrap_or(0) + 1;
        longest = longest.max(own);
        for user in &users[at] {
            let below = depth.entry(*user).or_default();
            *below = (*below).max(own);
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                ready.push(*user);
            }
        }
    }
    longest + (waiting.len() - seen)
}
