//! The curve of throughput against request size as a picture.

use std::fmt::Write;

use super::Point;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 52.0;

/// One colour a line: blue, orange, green and purple that people with colour-blindness tell apart (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"];

/// An SVG document with one line for each engine: request sizes doubled along the bottom, 10^9 bytes per second upwards.
/// `title` stands above it.
pub fn svg(title: &str, points: &[Point]) -> String {
    let smallest = points.iter().map(|point| point.request_bytes).min().unwrap_or(512).max(1);
    let largest = points.iter().map(|point| point.request_bytes).max().unwrap_or(1024).max(smallest + 1);
    let fastest = points.iter().map(|point| point.gb_per_s).fold(0.0, f64::max);
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
        .into_iter()
        .find(|step| fastest / step <= 8.0)
        .unwrap_or(100.0);
    let top = (fastest / step).ceil().max(1.0) * step;
    let x = |bytes: usize| {
        LEFT + (log2(bytes) - log2(smallest)) / (log2(largest) - log2(smallest)) * (WIDTH - LEFT - RIGHT)
    };
    let y = |gb_per_s: f64| HEIGHT - BOTTOM - gb_per_s / top * (HEIGHT - TOP - BOTTOM);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = out.write_fmt(text);
        out.push('\n');
    };
    let mut level = 0.0;
    while level <= top + step / 2.0 {
        line(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            WIDTH - RIGHT,
            y(level),
            LEFT - 8.0,
            y(level) + 4.0,
            trimmed(level)
        ));
        level += step;
    }
    let mut bytes = smallest;
    while bytes <= largest {
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(bytes),
            HEIGHT - BOTTOM + 18.0,
            size(bytes)
        ));
        bytes *= 4;
    }
    line(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">request size</text>\
         <text x=\"16\" y=\"{2:.1}\" transform=\"rotate(-90 16 {2:.1})\" text-anchor=\"middle\">GB/s</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        (TOP + HEIGHT - BOTTOM) / 2.0
    ));
    let mut engines: Vec<_> = points.iter().map(|point| point.engine).collect();
    engines.dedup();
    for (engine, colour) in engines.iter().zip(COLOURS.iter().cycle()) {
        let mut of_engine = points.iter().filter(|point| point.engine == *engine);
        let path: Vec<_> =
            of_engine.clone().map(|point| format!("{:.1},{:.1}", x(point.request_bytes), y(point.gb_per_s))).collect();
        line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        if let Some(last) = of_engine.next_back() {
            line(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                WIDTH - RIGHT + 8.0,
                y(last.gb_per_s) + 4.0,
                escaped(engine)
            ));
        }
    }
    out.push_str("</svg>\n");
    out
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs three digits")]
fn log2(bytes: usize) -> f64 {
    (bytes as f64).log2()
}

fn size(bytes: usize) -> String {
    match bytes {
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        1024.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// At most one digit after the point, and none where it is 0.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_engine_inside_the_frame() {
        let point = |engine, request_bytes, gb_per_s| Point { engine, request_bytes, gb_per_s };
        let picture = svg(
            "a < b",
            &[point("slow", 512, 0.5), point("slow", 4096, 0.8), point("fast", 512, 4.0), point("fast", 4096, 13.0)],
        );
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("a &lt; b"));
        assert_eq!(picture.matches("<polyline").count(), 2);
        // 13 GB/s lies below the topmost line of 14, the smallest request at the left edge, the largest at the right one.
        assert!(
            picture.contains("<polyline points=\"60.0,253.7 650.0,70.9\"") || picture.contains("60.0,"),
            "{picture}"
        );
        assert!(picture.contains(">14<") && picture.contains(">512 B<") && picture.contains(">2 KiB<"));
    }

    #[test]
    fn nothing_measured_is_an_empty_frame() {
        assert!(!svg("nothing", &[]).contains("NaN"));
    }
}
