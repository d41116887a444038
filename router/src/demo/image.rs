//! Is this the image of that prompt? ComfyUI writes the prompt into each PNG it saves, so the picture itself tells.

use serde_json::Value;

use super::workload::{Prompt, Workflow};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Checks format, size and the prompt inside.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(png: &[u8], prompt: &Prompt) -> Result<(), String> {
    let Picture { size, prompt: inside } = read(png).ok_or("it is no whole PNG")?;
    let side = prompt.workflow.side();
    if size != (side, side) {
        return Err(format!("it is {}x{}, not {side}x{side}", size.0, size.1));
    }
    let inside = inside.ok_or("it does not tell its prompt")?;
    let graph: Value = serde_json::from_slice(inside).map_err(|error| format!("its prompt: {error}"))?;
    let mark = match prompt.workflow {
        Workflow::Text { .. } => &graph["6"]["inputs"]["seed"],
        Workflow::Plain { .. } => &graph["1"]["inputs"]["color"],
    };
    match mark.as_u64() == Some(prompt.mark.into()) {
        true => Ok(()),
        false => Err(format!("it is the image of another prompt: its mark is {mark}, not {}", prompt.mark)),
    }
}

/// What is looked at of a PNG.
struct Picture<'a> {
    /// Width and height, from `IHDR`.
    size: (u32, u32),
    /// Text of the `tEXt` chunk of this name.
    prompt: Option<&'a [u8]>,
}

/// None unless everything up to `IEND` is there.
fn read(png: &[u8]) -> Option<Picture<'_>> {
    let mut rest = png.strip_prefix(SIGNATURE)?;
    let (mut size, mut prompt) = (None, None);
    loop {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = rest.get(4..8)?;
        let data = rest.get(8..8_usize.checked_add(length)?)?;
        match kind {
            b"IHDR" => {
                let number = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
                size = Some((number(0)?, number(4)?));
            }
            b"tEXt" => prompt = data.strip_prefix(b"prompt\0").or(prompt),
            b"IEND" => return Some(Picture { size: size?, prompt }),
            _ => {}
        }
        // A checksum of four bytes follows the data.
        rest = rest.get(12 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn prompt(mark: u32) -> Prompt {
        Prompt { index: 0, at: Duration::ZERO, workflow: Workflow::Plain { side: 64 }, mark, own_id: false }
    }

    fn png(side: u32, text: &str) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let text = format!("prompt\0{text}");
        for (kind, data) in [(b"IHDR", &header[..]), (b"tEXt", text.as_bytes()), (b"IEND", b"")] {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(kind);
            bytes.extend(data);
            bytes.extend([0; 4]);
        }
        bytes
    }

    #[test]
    fn an_image_is_known_by_the_prompt_inside() {
        let mine = prompt(7).graph().to_string();
        assert_eq!(check(&png(64, &mine), &prompt(7)), Ok(()));
        assert!(check(&png(64, &mine), &prompt(8)).unwrap_err().contains("another prompt"));
        assert!(check(&png(32, &mine), &prompt(7)).unwrap_err().contains("32x32"));
        assert!(check(&png(64, "[]"), &prompt(7)).is_err());
    }

    #[test]
    fn broken_bytes_are_no_image() {
        let whole = png(64, &prompt(7).graph().to_string());
        for end in [0, 3, 8, 12, 30, whole.len() - 13] {
            assert!(check(&whole[..end], &prompt(7)).is_err(), "{end}");
        }
        assert!(check(&[SIGNATURE, &[0xff; 40]].concat(), &prompt(7)).is_err());
    }
}
