//! Other values for some inputs of a graph's text; everything else stays byte for byte.

use serde_json::value::RawValue;

use crate::comfy::json::{self, Members};
use crate::model::job::Rename;

/// The graph with these values in the place of those posted. A node or input that is not there is left out.
pub fn renamed(prompt: &str, renames: &[Rename]) -> String {
    let mut places: Vec<(usize, usize, &str)> = Vec::new();
    if let Ok(nodes) = serde_json::from_str::<Members<'_>>(prompt) {
        for rename in renames {
            if let Some(raw) = value_of(&nodes, rename) {
                let start = raw.get().as_ptr() as usize - prompt.as_ptr() as usize;
                places.push((start, start + raw.get().len(), &rename.value));
            }
        }
    }
    places.sort_unstable();
    let mut text = String::with_capacity(prompt.len() + 64 * places.len());
    let mut copied = 0;
    for (start, end, value) in places {
        let Some(before) = prompt.get(copied..start) else { continue };
        text.push_str(before);
        text.push_str(&json::quote(value));
        copied = end;
    }
    text.push_str(&prompt[copied..]);
    text
}

fn value_of<'a>(nodes: &Members<'a>, rename: &Rename) -> Option<&'a RawValue> {
    let node = json::members(nodes.get(&rename.node)?).ok()?;
    let inputs = json::members(node.get("inputs")?).ok()?;
    inputs.get(&rename.input).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(node: &str, input: &str, value: &str) -> Rename {
        Rename { node: node.into(), input: input.into(), value: value.into() }
    }

    #[test]
    fn only_the_named_values_change() {
        let prompt = r#"{ "1": {"inputs": {"image" : "a.png","n":1e400}, "class_type":"L"}, "ä": {"inputs":{"video":{"__value__":"b"}}} }"#;
        let renames = [rename("ä", "video", "@t/b"), rename("1", "image", "~g/\"x\".png [output]")];
        let expected = r#"{ "1": {"inputs": {"image" : "~g/\"x\".png [output]","n":1e400}, "class_type":"L"}, "ä": {"inputs":{"video":"@t/b"}} }"#;
        assert_eq!(renamed(prompt, &renames), expected);
        assert_eq!(renamed(prompt, &[]), prompt);
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        let prompt = r#"{"1":{"inputs":{"a":"b"}},"2":5,"3":{}}"#;
        let renames =
            [rename("9", "a", "x"), rename("1", "z", "x"), rename("2", "a", "x"), rename("3", "a", "x")];
        assert_eq!(renamed(prompt, &renames), prompt);
        assert_eq!(renamed("[]", &renames), "[]");
        let twice = [rename("1", "a", "x"), rename("1", "a", "y")];
        assert_eq!(renamed(prompt, &twice), r#"{"1":{"inputs":{"a":"x"}},"2":5,"3":{}}"#);
    }
}
