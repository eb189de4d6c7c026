//! The older text format of Prometheus, 0.0.4, made of OpenMetrics: for whoever does not ask for the newer one.
//!
//! | OpenMetrics                                     | 0.0.4                                                  |
//! |-------------------------------------------------|--------------------------------------------------------|
//! | a counter is called without its samples' `_total` | with it                                              |
//! | `info`, called without its samples' `_info`     | a gauge, called with it                                |
//! | exemplars, units, `# EOF`                       | none                                                   |

/// OpenMetrics as text of the format 0.0.4.
#[must_use]
pub fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        // The help comes first, and what it helps with is called by its type.
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                text += &format!("# HELP {name}{suffix} {words}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else {
            // No label of ours has this in its value: they are names, routes and numbers.
            let sample = line.split_once(" # {").map_or(line, |(sample, _)| sample);
            text += sample;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_becomes_what_older_readers_know() {
        let openmetrics = "# HELP a_requests Of # {this}.\n# TYPE a_requests counter\na_requests_total{x=\"y\"} 3\n\
            # HELP a_build Which one.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
            # HELP a_seconds How long.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
            a_seconds_bucket{le=\"1.0\"} 3 # {trace_id=\"02\"} 0.5 1763750000.123\na_seconds_sum 1.5\na_seconds_count 3\n\
            # TYPE a_level gauge\na_level 7\n# EOF\n";
        let expected = "# HELP a_requests_total Of # {this}.\n# TYPE a_requests_total counter\na_requests_total{x=\"y\"} 3\n\
            # HELP a_build_info Which one.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
            # HELP a_seconds How long.\n# TYPE a_seconds histogram\n\
            a_seconds_bucket{le=\"1.0\"} 3\na_seconds_sum 1.5\na_seconds_count 3\n\
            # TYPE a_level gauge\na_level 7\n";
        assert_eq!(classic(openmetrics), expected);
    }
}
