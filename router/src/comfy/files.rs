//! References to files, and which instance a file lies on.
//!
//! Every instance numbers its outputs by its own disk: all of them write `ComfyUI_00001_.png`. So each reference that
//! clients see carries its instance in front of its `subfolder`, as `~gpu0` or `~gpu0/portraits`, and `/view` takes
//! it off again. A browser, a script and the history then agree on one name for one file.

use serde_json::{Map, Value};

use super::json::{self, JsonError};
use crate::model::event::OutputFile;
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

const MARK: char = '~';
const KINDS: [&str; 3] = ["input", "output", "temp"];

/// A subfolder as clients see it.
pub fn tag(instance: &InstanceId, subfolder: &str) -> String {
    if subfolder.is_empty() { format!("{MARK}{instance}") } else { format!("{MARK}{instance}/{subfolder}") }
}

/// The instance and the subfolder on its disk; no instance if the reference is not one of ours. Whether the instance
/// exists is for the caller to ask.
pub fn untag(subfolder: &str) -> (Option<InstanceId>, &str) {
    let Some(rest) = subfolder.strip_prefix(MARK) else { return (None, subfolder) };
    let (name, rest) = rest.split_once(['/', '\\']).unwrap_or((rest, ""));
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(legal) {
        return (None, subfolder);
    }
    (Some(InstanceId::from(name)), rest)
}

/// Tags every file that one node's output names: each object with a `filename`, in any list. Tagged ones are left.
pub fn tag_node(output: &mut Value, instance: &InstanceId, files: &mut Vec<OutputFile>) {
    let Some(lists) = output.as_object_mut() else { return };
    for item in lists.values_mut().filter_map(Value::as_array_mut).flatten() {
        if let Some(item) = item.as_object_mut() {
            tag_item(item, instance, files);
        }
    }
}

fn tag_item(item: &mut Map<String, Value>, instance: &InstanceId, files: &mut Vec<OutputFile>) {
    let Some(filename) = item.get("filename").and_then(Value::as_str).map(str::to_owned) else { return };
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subfolder = text("subfolder");
    let kind = Some(text("type")).filter(|kind| !kind.is_empty()).unwrap_or_else(|| "output".to_owned());
    item.insert("subfolder".to_owned(), Value::from(tag(instance, &subfolder)));
    files.push(OutputFile { kind, subfolder, filename });
}

/// Tags the `outputs` of a history entry: node id to that node's output.
pub fn tag_outputs(outputs: &[u8], instance: &InstanceId) -> Result<(String, Vec<OutputFile>), JsonError> {
    let mut outputs: Map<String, Value> = json::parse(outputs)?;
    let mut files = Vec::new();
    for output in outputs.values_mut() {
        tag_node(output, instance, &mut files);
    }
    Ok((Value::Object(outputs).to_string(), files))
}

/// Reads a graph's reference to a file, `[subfolder/]name[ [input|output|temp]]`. None for what names no file or
/// leads out of its folder: the instance will refuse that itself.
///
/// A tagged subfolder stays as it is: an instance that is to read the file is given it under the tagged name.
pub fn upload_ref(value: &str) -> Option<UploadRef> {
    let (path, kind) = annotated(value);
    let path = path.replace('\\', "/");
    let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let escapes = path.starts_with('/') || path.split('/').any(|part| part == "..") || path.contains('\0');
    if name.is_empty() || escapes || path.len() > 1024 {
        return None;
    }
    Some(UploadRef { kind: kind.to_owned(), subfolder: subfolder.to_owned(), name: name.to_owned() })
}

/// Does a graph's reference lead out of its folder, on any system? ComfyUI before 0.28.0 follows it.
pub fn leads_out(value: &str) -> bool {
    let path = annotated(value).0.replace('\\', "/");
    let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    drive || path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..")
}

/// A reference as a graph writes it.
pub fn reference(file: &UploadRef) -> String {
    let path = match file.subfolder.is_empty() {
        true => file.name.clone(),
        false => format!("{}/{}", file.subfolder, file.name),
    };
    // A name that ends like an annotation needs one, or loses its own end.
    let plain = file.kind == "input" && annotation(&path).1.is_none();
    if plain { path } else { format!("{path} [{}]", file.kind) }
}

/// Where a file is asked for. ComfyUI looks at the last part of a name only, so folders in it go into `subfolder`.
pub fn view_path(file: &UploadRef) -> String {
    let path = match file.subfolder.is_empty() {
        true => file.name.clone(),
        false => format!("{}/{}", file.subfolder, file.name),
    };
    let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let [name, kind, subfolder] = [name, &file.kind, subfolder].map(percent_encoded);
    format!("/view?filename={name}&type={kind}&subfolder={subfolder}")
}

/// As a value of a query or as segments of a path.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Splits ComfyUI's annotation off; `input` is the folder of an unannotated name.
pub fn annotated(value: &str) -> (&str, &'static str) {
    let (bare, kind) = annotation(value);
    (bare, kind.unwrap_or("input"))
}

/// Splits ComfyUI's annotation off, if there is one.
pub fn annotation(value: &str) -> (&str, Option<&'static str>) {
    for kind in KINDS {
        let bare =
            value.strip_suffix(']').and_then(|v| v.strip_suffix(kind)).and_then(|v| v.strip_suffix('['));
        if let Some(bare) = bare {
            return (bare.strip_suffix(' ').unwrap_or(bare), Some(kind));
        }
    }
    (value, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gpu0() -> InstanceId {
        InstanceId::from("gpu-0.a_b")
    }

    #[test]
    fn a_tag_comes_off_as_it_went_on() {
        for subfolder in ["", "portraits", "a/b", "~odd"] {
            let tagged = tag(&gpu0(), subfolder);
            assert_eq!(untag(&tagged), (Some(gpu0()), subfolder));
        }
    }

    #[test]
    fn what_only_looks_like_a_tag_is_left_alone() {
        let long = format!("~{}", "x".repeat(200));
        for subfolder in ["", "plain", "~", "~/x", "~a b/x", "~ä", "x/~gpu0", &long] {
            assert_eq!(untag(subfolder), (None, subfolder));
        }
        assert_eq!(untag("~a/../../etc"), (Some(InstanceId::from("a")), "../../etc"));
    }

    #[test]
    fn every_file_is_tagged_and_nothing_else_is_touched() {
        let outputs = json!({
            "9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}], "animated": [true], "text": ["hi"]},
            "10": {"gifs": [{"filename": "v.mp4", "subfolder": "s", "type": "temp", "format": "video/h264"}], "odd": {"filename": "no"}},
            "11": null,
            "12": {"images": [{"filename": 7}, "bare", {"filename": "b.png"}]},
        });
        let (text, files) = tag_outputs(outputs.to_string().as_bytes(), &"g".into()).unwrap();
        let tagged: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(tagged["9"]["images"][0]["subfolder"], "~g");
        assert_eq!(tagged["9"]["animated"], json!([true]));
        assert_eq!(tagged["10"]["gifs"][0]["subfolder"], "~g/s");
        assert_eq!(tagged["12"]["images"][0], json!({"filename": 7}));
        let names: Vec<_> =
            files.iter().map(|f| (f.kind.as_str(), f.subfolder.as_str(), f.filename.as_str())).collect();
        assert_eq!(names, [("output", "", "a.png"), ("temp", "s", "v.mp4"), ("output", "", "b.png")]);
    }

    #[test]
    fn outputs_of_a_broken_instance_are_an_error_or_pass() {
        assert!(tag_outputs(b"[]", &gpu0()).is_err());
        assert!(tag_outputs(b"{\"a\":\"\xff\"}", &gpu0()).is_err());
        assert_eq!(tag_outputs(b"{\"a\":[NaN]}", &gpu0()).unwrap().0, "{\"a\":[null]}");
    }

    #[test]
    fn a_name_that_ends_like_an_annotation_is_written_so_that_it_is_read_again() {
        for value in ["a [input] [input]", "s/a [temp] [input]", "a[output] [temp]", "[input] [input]"] {
            let file = upload_ref(value).unwrap();
            assert_eq!(upload_ref(&reference(&file)), Some(file), "{value}");
        }
        assert_eq!(reference(&upload_ref("s/a.png [input]").unwrap()), "s/a.png");
    }

    #[test]
    fn a_reference_that_leads_out_is_known_on_any_system() {
        for value in [
            "../a",
            "s/../../a [output]",
            "/etc/passwd",
            "C:\\a",
            "c:/a",
            "..\\a",
            "a/..",
            "\\\\host\\a",
            "a\0b",
            "../a[temp]",
        ] {
            assert!(leads_out(value), "{value}");
        }
        for value in ["a..b.png", "", "s/", "..a/b", "a [input]", "~gpu0/x.png [output]", "ab:c"] {
            assert!(!leads_out(value), "{value}");
        }
    }

    #[test]
    fn a_reference_is_written_as_it_is_read() {
        for value in ["a.png", "s/t/a b.png", "~gpu0/a.png [output]", "x.webm [temp]"] {
            assert_eq!(reference(&upload_ref(value).unwrap()), value);
        }
    }

    #[test]
    fn a_hostile_name_stays_one_value_of_the_query() {
        let file =
            UploadRef { kind: "input".into(), subfolder: "a&type=output".into(), name: "x #?&=%.png".into() };
        assert_eq!(
            view_path(&file),
            "/view?filename=x%20%23%3F%26%3D%25.png&type=input&subfolder=a%26type%3Doutput"
        );
        let nested = UploadRef { kind: "input".into(), subfolder: "s".into(), name: "b/a.png".into() };
        assert_eq!(view_path(&nested), "/view?filename=a.png&type=input&subfolder=s/b");
    }

    #[test]
    fn references_follow_comfyuis_grammar() {
        let read = |value| upload_ref(value).map(|r| (r.kind, r.subfolder, r.name));
        let triple =
            |kind: &str, subfolder: &str, name: &str| Some((kind.into(), subfolder.into(), name.into()));
        assert_eq!(read("a.png"), triple("input", "", "a.png"));
        assert_eq!(read("s/t/a.png [temp]"), triple("temp", "s/t", "a.png"));
        assert_eq!(read("~gpu0/a b.png [output]"), triple("output", "~gpu0", "a b.png"));
        assert_eq!(read("s\\a.png"), triple("input", "s", "a.png"));
        for hostile in ["", "/etc/passwd", "../a", "s/../../a", "s/", " [input]", "a\0b"] {
            assert_eq!(read(hostile), None, "{hostile:?}");
        }
    }
}
