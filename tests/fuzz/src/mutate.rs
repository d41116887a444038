//! Inputs from seeds: bytes changed anywhere, and JSON changed as JSON, with the values that programs trip over.

use serde_json::{Value, json};

/// SplitMix64: the same inputs on every machine.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
}

/// The next input.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    // Half of what is JSON stays JSON, so that it gets past the parser.
    if random.below(2) == 0
        && let Some(changed) = as_json(&input, random)
    {
        return changed;
    }
    for _ in 0..=random.below(6) {
        change_bytes(&mut input, seeds, random);
    }
    input
}

/// A JSON text, or lines of them, possibly behind one byte that says what follows.
fn as_json(input: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (head, text) = match input.first()? {
        b'{' | b'[' => (&input[..0], input),
        _ => input.split_at(1),
    };
    let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let mut values: Vec<Value> =
        lines.iter().map(|line| serde_json::from_slice(line)).collect::<Result<_, _>>().unwrap_or_default();
    if values.is_empty() {
        values = vec![serde_json::from_slice(text).ok()?];
        lines = vec![Vec::new()];
    }
    for _ in 0..1 + random.below(4) {
        let at = random.below(values.len());
        change_value(&mut values[at], random);
    }
    for (line, value) in lines.iter_mut().zip(&values) {
        *line = value.to_string().into_bytes();
    }
    Some([head, &lines.join(&b'\n')].concat())
}

fn change_value(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(members) if !members.is_empty() && random.below(8) > 0 => {
            let at = random.below(members.len());
            let key = members.keys().nth(at).cloned().unwrap_or_default();
            match random.below(12) {
                0 => drop(members.remove(&key)),
                1 => drop(members.insert(odd_text(random), odd(random))),
                _ => change_value(&mut members[&key], random),
            }
        }
        Value::Array(items) if !items.is_empty() && random.below(8) > 0 => {
            let at = random.below(items.len());
            match random.below(12) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => change_value(&mut items[at], random),
            }
        }
        value => *value = odd(random),
    }
}

fn odd(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(u32::MAX),
        6 => json!(1e308),
        7 => json!(-0.0),
        8 => json!(random.draw() as i64),
        9 => json!([]),
        10 => json!({}),
        11 => json!([["1", 0], ["1", -1], [null, 1e9]]),
        12 => (0..random.below(200)).fold(json!("deep"), |inner, _| json!([inner])),
        13 => json!({"content": odd_text(random), "__value__": [odd_text(random), 0]}),
        _ => json!(odd_text(random)),
    }
}

fn odd_text(random: &mut Random) -> String {
    const TEXTS: [&str; 16] = [
        "",
        " ",
        "\0",
        "../../x",
        "~gpu0",
        "~",
        "a [output]",
        "[temp]",
        "1",
        "NaN",
        "-Infinity",
        "é\u{202e}\u{1F600}",
        "SaveImage",
        "__proto__",
        "%2e%2e%2f",
        "C:\\x",
    ];
    match random.below(20) {
        0 => "x".repeat(random.below(5_000)),
        1 => char::from_u32(random.below(0x11_0000) as u32).unwrap_or('\u{FFFD}').to_string(),
        _ => TEXTS[random.below(TEXTS.len())].to_owned(),
    }
}

fn change_bytes(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    if input.is_empty() {
        input.push(random.draw() as u8);
    }
    let at = random.below(input.len());
    let until = (at + 1 + random.below(32)).min(input.len());
    match random.below(8) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\n'][random.below(8)],
        2 => input.truncate(at),
        3 => drop(input.drain(at..until)),
        4 => {
            let copy = input[at..until].to_vec();
            input.splice(at..at, copy);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let piece = other[from..(from + random.below(256)).min(other.len())].to_vec();
            input.splice(at..at, piece);
        }
        6 => {
            let word = [0_u32, 1, u32::MAX, i32::MAX as u32, 1 << 31, 65_536][random.below(6)].to_le_bytes();
            input.iter_mut().skip(at).zip(word).for_each(|(byte, its)| *byte = its);
        }
        _ => input.iter_mut().take(until).skip(at).for_each(|byte| *byte = random.draw() as u8),
    }
}
