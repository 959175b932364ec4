//! Prometheus' text format.

use std::fmt::Write as _;

/// A page under construction. All samples of one metric are written together, as the format wants it.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// One gauge with its samples: labels and value. Without samples it is left out: absent is not zero.
    pub fn gauge(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], f64)]) {
        if samples.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn labels_are_escaped_and_metrics_without_samples_left_out() {
        let mut page = Page::default();
        page.gauge("a", "first", &[(&[("x", "q\"\\\n")], 1.0), (&[], 2.5)]);
        page.gauge("b", "none", &[]);
        assert_eq!(
            page.into_text(),
            "# HELP a first\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\"} 1\na 2.5\n"
        );
    }
}
