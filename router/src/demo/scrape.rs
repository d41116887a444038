//! Reads the router's own `/metrics`.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Debug, Default)]
pub(super) struct Scrape(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// Lines that are no sample are passed over.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    pub(super) fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|sample| sample.value).sum()
    }

    /// Sums by the values of these labels; a sample without one of them has it empty.
    pub(super) fn by<const N: usize>(&self, name: &str, labels: [&str; N]) -> BTreeMap<[String; N], f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name) {
            let key = labels.map(|label| sample.labels.get(label).cloned().unwrap_or_default());
            *sums.entry(key).or_default() += sample.value;
        }
        sums
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

/// `name{label="value",...} number`. The router's label values hold no quotes.
fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
    Some(Sample {
        name: name.to_owned(),
        labels: pairs.map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned())).collect(),
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x_total y\nx_total{hook=\"route\",policy=\"a@1\",outcome=\"answered\"} 3\n\
                        x_total{hook=\"route\",policy=\"b@2\",outcome=\"answered\"} 4\nx_total{hook=\"admit\",policy=\"a@1\"} 2\ny 1.5\nbroken\n";

    #[test]
    fn samples_are_summed_by_their_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!((scrape.sum("x_total"), scrape.sum("y"), scrape.sum("z")), (9.0, 1.5, 0.0));
        let hooks = [(["admit".to_owned()], 2.0), (["route".to_owned()], 7.0)];
        assert_eq!(scrape.by("x_total", ["hook"]), hooks.into());
        let both = scrape.by("x_total", ["hook", "policy"]);
        assert_eq!(both[&["route".to_owned(), "b@2".to_owned()]], 4.0);
    }
}
